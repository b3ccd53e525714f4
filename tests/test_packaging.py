"""Built packages install and run: an sdist, a wheel from it, one without torch or a compiler."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import lrfused
from lrfused.extension import build_record

ROOT = Path(__file__).resolve().parent.parent
BUILT = (".*", "build", "dist", "site", "*.so", "*.so.json", "*.egg-info", "__pycache__")
RECORD = build_record.PATH.name
SHIPPED = ("csrc", "lrfused", "tests", "docs", "benchmarks", "examples")
EXTRAS = {"bench", "cli", "clients", "demo", "docs", "frameworks", "lint", "plot", "test"}

# A user's environment, without the variables of the tests. No build at run time: it takes long,
# and test_install_build.py has builds of a smaller extension.
ENVIRONMENT = {
    key: value
    for key, value in os.environ.items()
    if key not in ("PYTHONPATH", "TRITON_INTERPRET", "LRFUSED_REQUIRE_EXTENSION")
} | {"LRFUSED_BUILD": "never", "LRFUSED_CACHE": "/proc/none"}

USE = """
import warnings, torch
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    import lrfused
    for _ in range(2):
        p, q = (torch.full((33,), 0.7).requires_grad_() for _ in range(2))
        ours = lrfused.FusedDecaySGD([p], lr=0.1, momentum=0.9, schedule=lrfused.StepLR(1))
        theirs = torch.optim.SGD([q], lr=0.1, momentum=0.9, foreach=False)
        scheduler = torch.optim.lr_scheduler.StepLR(theirs, 1)
        for step in range(3):
            p.grad, q.grad = (torch.full((33,), 0.3 + step) for _ in range(2))
            ours.step(); theirs.step(); scheduler.step()
        assert torch.equal(p.view(torch.int32), q.view(torch.int32))
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
print(lrfused.__file__)
print(*(str(w.message) for w in told), sep="\\n")
"""

# An editable install's finder would find what the installed wheel lacks.
ALONE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
"""

NO_TORCH = "import sys; sys.modules['torch'] = None"  # neither found nor imported

IMPORTED = """
import sys, torch
before = set(sys.modules)
import lrfused
print(*sorted(set(sys.modules) - before), sep="\\n")
"""


def run(*command, folder, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def pip(*arguments, folder, **environment):
    offline = ("--no-index", "--no-deps", "--disable-pip-version-check")
    return run("-m", "pip", *arguments, *offline, folder=folder, **environment)


@pytest.fixture(scope="session")
def dist(shared):
    """Build the sdist, and from it the wheel, once."""
    pytest.importorskip("build")
    out = shared / "dist"
    with FileLock(shared / "dist.lock"):
        if not out.exists():
            checkout = shared / "checkout"
            shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(*BUILT))
            shutil.copy(ROOT / ".clang-format", checkout)
            run("-m", "build", "--no-isolation", "--outdir", shared / "made", folder=checkout)
            (shared / "made").rename(out)
    return out


@pytest.fixture(scope="session")
def sdist(dist):
    (path,) = dist.glob("*.tar.gz")
    return path


@pytest.fixture(scope="session")
def wheel(dist):
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture
def installed(tmp_path):
    """Install a wheel into an empty folder, which torch alone is beside; give its environment."""

    def install(wheel):
        target = tmp_path / "site"
        pip("install", "--target", target, wheel, folder=tmp_path)
        (target / "sitecustomize.py").write_text(ALONE)
        return {"PYTHONPATH": str(target)}

    return install


def test_the_sdist_holds_every_source(sdist):
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    ignored = shutil.ignore_patterns(*BUILT)
    for top in SHIPPED:
        for folder, _, names in os.walk(ROOT / top):
            if not {"__pycache__", ".hypothesis"} & set(Path(folder).parts):
                for name in set(names) - ignored(folder, names):
                    assert str((Path(folder) / name).relative_to(ROOT)) in held
    assert held >= {"LICENSE", "CHANGELOG.md", "README.md", "Makefile", "mkdocs.yml", "setup.py"}


def test_the_wheel_holds_the_extension_the_types_and_the_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (licence,) = (name for name in names if name.endswith("licenses/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        (path,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(path).decode())
        (points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "lrfused = lrfused.commands.main:main" in archive.read(points).decode()
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "lrfused").rglob("*.py")}
    assert modules | {"lrfused/py.typed", "lrfused/_C.pyi", f"lrfused/{RECORD}"} <= set(names)
    assert any(re.fullmatch(r"lrfused/_C\.\S+\.so", name) for name in names)
    assert all(name.startswith(("lrfused/", "lrfused-")) for name in names)
    assert metadata["Version"] == lrfused.__version__
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert set(metadata.get_all("Provides-Extra")) == EXTRAS
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    required = [r for r in metadata.get_all("Requires-Dist") if "extra" not in r]
    assert required == ["torch>=2.9", "setuptools", "ninja"]


@pytest.fixture(scope="session")
def pure(sdist, shared):
    """Build a wheel where there is no torch, once."""
    out = shared / "pure"
    with FileLock(shared / "pure.lock"):
        if not out.exists():
            (shared / "no_torch").mkdir()
            (shared / "no_torch" / "sitecustomize.py").write_text(NO_TORCH)
            pip(
                "wheel", "--no-build-isolation", "--wheel-dir", shared / "made_pure", sdist,
                folder=shared, PYTHONPATH=str(shared / "no_torch"), CXX="/none",
            )  # fmt: skip
            (shared / "made_pure").rename(out)
    (path,) = out.glob("*.whl")
    return path


def test_without_torch_the_wheel_is_for_every_torch_and_has_the_sources(pure, wheel):
    assert pure.name == f"lrfused-{lrfused.__version__}-py3-none-any.whl"
    assert "none-any" not in wheel.name
    sources = {f"lrfused/{p.relative_to(ROOT)}" for p in (ROOT / "csrc").rglob("*") if p.is_file()}
    for path in (pure, wheel):
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
        assert names >= sources
    with zipfile.ZipFile(pure) as archive:
        assert not [n for n in archive.namelist() if re.search(r"_C\..*\.(so|json)$", n)]


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"LRFUSED_BUILD": "never"}, "and LRFUSED_BUILD=never; `lrfused build` compiles it"),
        ({"LRFUSED_BUILD": "auto", "CXX": "/none"}, "no C++ compiler (/none: not found)"),
    ],
    ids=["never", "no compiler"],
)
def test_where_nothing_is_compiled_it_has_the_same_bits_and_warns_once(
    environment, told, pure, installed, tmp_path
):
    there = {**installed(pure), **environment}
    place, *warned = run("-c", USE, folder=tmp_path, **there).stdout.splitlines()
    assert place.startswith(there["PYTHONPATH"])
    assert len(warned) == 1, warned
    assert warned[0].startswith("lrfused has no kernels for cpu here (compiled: ")
    assert told in warned[0]
    info = run("-m", "lrfused", "info", folder=tmp_path, COLUMNS="500", **there).stdout
    (line,) = (line for line in info.splitlines() if line.startswith("extension: none: "))
    assert told in line


def test_an_installed_copy_and_the_tree_have_one_key(pure, installed, tmp_path):
    there = installed(pure)
    ask = "from lrfused.extension import cache; print(cache.CSRC); print(cache.key())"
    place, key = run("-c", ask, folder=tmp_path, **there).stdout.splitlines()
    assert place == f"{there['PYTHONPATH']}/lrfused/csrc"
    ours = run("-c", ask, folder=tmp_path, PYTHONPATH=str(ROOT)).stdout.splitlines()
    assert ours == [str(ROOT / "csrc"), key]


def test_the_wheel_installed_alone_passes_verify(wheel, installed, tmp_path):
    there = installed(wheel)
    info = run("-m", "lrfused", "info", folder=tmp_path, COLUMNS="500", **there).stdout
    assert re.search(r"^extension: \S+/site/lrfused/_C\S+, installed with lrfused$", info, re.M)
    used = run("-W", "error", "-c", USE, folder=tmp_path, **there)
    assert used.stdout.startswith(there["PYTHONPATH"])
    script = Path(there["PYTHONPATH"]) / "bin" / "lrfused"
    told = run(script, "verify", "--quick", folder=tmp_path, **there).stdout
    assert "all equal, bit for bit" in told
    assert "compiled" in told


COMPILERS = {  # that fail, and what is told of each
    "none": ("/none", "/none: not found"),
    "error": (
        '#!/bin/sh\ncase " $* " in *" -c "*) ;; *) exec c++ "$@" ;; esac\n'
        'echo "In file included from here:"\n'
        'echo "csrc/gather.cpp:3:14: error: planted" >&2\n'
        'echo "csrc/gather.cpp:4:1: error: another" >&2\nexit 1\n',
        "csrc/gather.cpp:3:14: error: planted",
    ),
}


@pytest.mark.parametrize("kind", COMPILERS)
def test_where_it_does_not_compile_it_has_the_same_bits_and_names_the_error(
    kind, sdist, installed, tmp_path
):
    compiler, told = COMPILERS[kind]
    if kind == "error":
        path = tmp_path / "c++"
        path.write_text(compiler)
        path.chmod(0o755)
        compiler = str(path)
    arguments = ("wheel", "--no-build-isolation", "--verbose", "--wheel-dir", tmp_path, sdist)
    built = pip(*arguments, folder=tmp_path, CXX=compiler)
    printed = built.stdout + built.stderr
    assert printed.count("lrfused: the compiled extension could not be built") == 1
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".so")]
    there = installed(wheel)
    place, *warned = run("-c", USE, folder=tmp_path, **there).stdout.splitlines()
    assert place.startswith(there["PYTHONPATH"])
    assert len(warned) == 1, warned
    assert warned[0].startswith("lrfused has no kernels for cpu here (compiled: ")
    assert told in warned[0]
    info = run("-m", "lrfused", "info", folder=tmp_path, COLUMNS="500", **there).stdout
    assert told in info


COUNTING = """#!/bin/sh
case " $* " in *" -c "*) echo "$@" >> {log} ;; esac
exec c++ -O0 "$@"
"""
# Another torch in the place of the one that is there, whose files are no newer.
UPGRADED = """
import os, runpy, sys, torch
torch.__version__ = torch.__version__.replace(*os.environ["UPGRADE"].split())
sys.argv[1:] = ["--quiet", "build_ext", "--inplace"]
runpy.run_path("setup.py", run_name="__main__")
"""


@pytest.mark.parametrize("ninja", [True, False], ids=["ninja", "no ninja"])
def test_for_another_torch_all_is_compiled_anew(ninja, tmp_path):
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "x.cpp").write_text("#ifndef LRFUSED_CUDA\nint x;\n#endif\n")
    (tmp_path / "csrc" / "cuda").mkdir()
    (tmp_path / "csrc" / "cuda" / "emulated.cpp").write_text("int y;\n")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "lrfused", tmp_path / "lrfused", ignore=shutil.ignore_patterns(*BUILT))
    compiler, log = tmp_path / "c++", tmp_path / "log"
    compiler.write_text(COUNTING.format(log=log))
    compiler.chmod(0o755)
    found = os.environ["PATH"] if ninja else "/usr/bin:/bin"
    if not ninja and shutil.which("ninja", path=found):
        pytest.skip("ninja is in /usr/bin")
    environment = {"CXX": str(compiler), "LRFUSED_CUDA": "0", "PATH": found}
    minor = torch.__version__.split(".")[1]
    for count, upgrade in enumerate((f"{minor} {minor}", f".{minor}. .{int(minor) + 1}."), start=1):
        run("-c", UPGRADED, folder=tmp_path, UPGRADE=upgrade, **environment)
        assert len(log.read_text().splitlines()) == 2 * count
        record = json.loads((tmp_path / "lrfused" / RECORD).read_text())
        assert record["torch"].split(".")[1] == upgrade.split()[1].strip(".")
        assert record["error"] is None


def test_it_is_not_loaded_into_another_minor_version_of_torch(wheel, installed, tmp_path):
    there = installed(wheel)
    record = Path(there["PYTHONPATH"]) / "lrfused" / RECORD
    built_for = json.loads(record.read_text())
    assert built_for == {"torch": torch.__version__, "error": None, "kernels_error": None}
    major, minor = torch.__version__.split(".")[:2]
    record.write_text(json.dumps({**built_for, "torch": f"{major}.{int(minor) - 1}.1+cpu"}))
    loaded = "\nimport sys; print('lrfused._C' in sys.modules)"
    _, warned, there_is = run("-c", USE + loaded, folder=tmp_path, **there).stdout.splitlines()
    assert f"compiled for torch {major}.{int(minor) - 1}.1+cpu, and this is torch" in warned
    assert there_is == "False"


def test_with_the_extension_required_a_failed_build_is_an_error(sdist, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
        + ["--wheel-dir", str(tmp_path), str(sdist)],
        env={**ENVIRONMENT, "CXX": "/none", "LRFUSED_REQUIRE_EXTENSION": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert not list(tmp_path.glob("*.whl"))


def test_import_brings_in_no_backend_no_command_and_no_other_package():
    done = run("-c", IMPORTED, folder=ROOT, PYTHONPATH=str(ROOT))
    new = done.stdout.split()
    others = {name.partition(".")[0] for name in new} - {"lrfused"}
    assert others <= sys.stdlib_module_names, others
    needless = re.compile(
        r"lrfused\.(backends\.\w+|commands|reference|extension\.(?!optional$)|_C)"
    )
    assert [name for name in new if needless.match(name)] == []
