"""The extension is compiled once for this torch, whoever asks and whoever is killed."""

import os
import signal
import stat
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from support.small_extension import ASK, LOAD, SmallExtension

from lrfused.commands.main import main
from lrfused.extension import build, build_record, cache

THIS = torch.__version__


@pytest.fixture
def small(tmp_path):
    """Return a copy of lrfused for processes of their own."""
    return SmallExtension(tmp_path)


@pytest.fixture
def here(small, monkeypatch):
    """Let this process build that copy's extension."""
    for name, value in small.environment.items():
        if name != "PYTHONPATH":
            monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(small.folder))
    monkeypatch.setattr(cache, "CSRC", small.csrc)
    monkeypatch.setattr(tempfile, "tempdir", str(small.folder))
    return small


def until(true):
    for _ in range(1200):
        if true():
            return
        time.sleep(0.05)
    pytest.fail("it did not come to be within a minute")


@pytest.mark.parametrize("csrc", ["csrc", "lrfused/csrc"], ids=["tree", "installed"])
def test_the_first_to_load_it_compiles_it_and_tells_so_in_one_line(csrc, tmp_path):
    small = SmallExtension(tmp_path, csrc)
    path, told = small.run(LOAD)
    assert Path(path).is_relative_to(small.cache)
    assert told == f"lrfused: compiles its extension for torch {THIS}, once, about 1 minute"
    assert small.compiled() == 2
    assert small.run(LOAD) == (path, "")
    assert small.compiled() == 2
    assert small.left_behind() == []


def test_four_processes_at_once_make_one_build(small):
    asked = [small.start(ASK) for _ in range(4)]
    printed = [process.communicate() for process in asked]
    assert {out for out, _ in printed} == {printed[0][0]}
    assert Path(printed[0][0].strip()).exists()
    assert sum("compiles its extension" in err for _, err in printed) == 1
    assert small.compiled() == 2


def test_a_killed_process_leaves_its_build_to_the_next(small):
    (small.folder / "wait").touch()
    first = small.start(ASK)
    until(small.compiled)
    first.kill()
    first.communicate()
    second = small.start(ASK)
    told = second.stderr.readline()
    assert told == "lrfused: waits for another process, which compiles the extension\n"
    (small.folder / "wait").unlink()
    assert Path(second.communicate()[0].strip()).exists()
    assert small.compiled() == 2
    assert small.left_behind() == []


def test_a_build_that_is_killed_is_made_anew_and_what_it_left_is_removed(small):
    (small.folder / "wait").touch()
    first = small.start(ASK)
    until(small.compiled)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert small.left_behind()
    (small.folder / "wait").unlink()
    path, told = small.run(ASK)
    assert Path(path).exists()
    assert "compiles its extension" in told
    assert small.left_behind() == []


def test_under_another_torch_it_is_another_and_the_first_stays(here, monkeypatch):
    first = build.obtain()
    with monkeypatch.context() as upgraded:
        upgraded.setattr(torch, "__version__", "2.99.1+cpu")
        assert cache.look_up(cache.key()) is None
        upgraded.setenv("LRFUSED_BUILD", "never")
        with pytest.raises(build.NotBuilt, match=r"not compiled for torch 2\.99\.1\+cpu"):
            build.obtain()
    assert build.obtain() == first
    assert here.compiled() == 2


def test_one_installed_for_an_older_torch_is_left_for_one_compiled_now(small):
    installed = small.folder / "lrfused" / build_record.NAME
    installed.write_text('{"torch": "2.1.0", "error": null, "kernels_error": null}')
    installed.with_suffix("").write_bytes(b"no extension of this torch")
    path, _ = small.run(LOAD)
    assert Path(path).is_relative_to(small.cache)
    installed.write_text(f'{{"torch": "{THIS}", "error": null, "kernels_error": null}}')
    assert small.run(LOAD) == (path, "")  # it cannot be loaded, though it fits
    os.replace(path, installed.with_suffix(""))
    assert small.run(LOAD) == (str(installed.with_suffix("")), "")
    assert small.compiled() == 2


def another_torch(monkeypatch, here):
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")


def another_commit_of_torch(monkeypatch, here):
    monkeypatch.setattr(torch.version, "git_version", "0123abc")


def another_python(monkeypatch, here):
    monkeypatch.setattr(cache, "EXTENSION_SUFFIXES", [".cpython-399-x86_64-linux-gnu.so"])


def another_flag(monkeypatch, here):
    monkeypatch.setenv("CXXFLAGS", "-O1")


def another_compiler(monkeypatch, here):
    (here.folder / "compiler").write_text("#!/bin/sh\necho 'c++ 99'\n")


def another_source(monkeypatch, here):
    (here.csrc / "small.h").write_text("int z;\n")


def another_nvcc(monkeypatch, here):
    monkeypatch.setattr(cache.toolchain, "nvcc", lambda: "/usr/bin/true")


@pytest.mark.parametrize(
    "change",
    [another_torch, another_commit_of_torch, another_python, another_flag, another_compiler,
     another_source, another_nvcc],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_the_key_has_all_that_an_extension_depends_on(change, here, monkeypatch):
    before = cache.key()
    assert cache.key() == before
    change(monkeypatch, here)
    assert cache.key() != before


def test_a_failed_build_is_told_with_its_log_and_not_tried_again_until_asked(here, capfd):
    (here.folder / "fail").touch()
    told = r"csrc/small.cpp:1:1: error: planted \((\S+\.log) has all; `lrfused build --again`"
    with pytest.raises(build.NotBuilt, match=told) as first:
        build.obtain()
    log = Path(str(first.value).partition("planted (")[2].partition(" has all")[0])
    assert "error: planted" in log.read_text()
    calls = here.compiled()
    with pytest.raises(build.NotBuilt, match=told):
        build.obtain()
    assert here.compiled() == calls
    (here.folder / "fail").unlink()
    path = build.obtain(again=True)
    assert path.exists()
    assert build.obtain() == path
    assert here.compiled() == calls + 2
    assert here.left_behind() == []
    assert capfd.readouterr().err.count("compiles its extension") == 2


def test_a_process_that_does_not_end_its_build_is_told_and_nothing_is_remembered(here, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(build, "_CHILD", "import os; os.abort()")
        with pytest.raises(build.NotBuilt, match=r"ended early, \S+\.log has all"):
            build.obtain()
    assert here.left_behind() == []
    assert build.obtain().exists()


def test_without_ninja_it_is_compiled_too(here, monkeypatch):
    none = here.folder / "bin" / "ninja"
    none.parent.mkdir()
    none.write_text("#!/bin/sh\nexit 1\n")
    none.chmod(0o755)
    monkeypatch.setenv("PATH", str(none.parent), prepend=os.pathsep)
    assert build.obtain().exists()
    assert here.compiled() == 2


def test_without_a_compiler_one_compiled_before_is_used_or_the_reason_told(here, monkeypatch):
    monkeypatch.setenv("CXX", "/none")
    with pytest.raises(build.NotBuilt, match=r"there is no C\+\+ compiler \(/none: not found\)"):
        build.obtain()
    monkeypatch.setenv("CXX", here.environment["CXX"])
    path = build.obtain()
    monkeypatch.setenv("CXX", "/none")
    assert build.obtain() == path


def test_where_the_cache_cannot_be_written_it_goes_to_a_folder_of_the_user_alone(here, monkeypatch):
    monkeypatch.setenv("LRFUSED_CACHE", "/proc/lrfused")
    path = build.obtain()
    own = here.folder / f"lrfused-{os.getuid()}"
    assert path.is_relative_to(own)
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert build.obtain() == path
    own.chmod(0o777)  # others may have put an extension there
    with pytest.raises(build.NotBuilt, match="set LRFUSED_CACHE"):
        build.obtain()
    assert here.compiled() == 2


def test_an_entry_that_lost_its_extension_is_compiled_anew(here):
    path = build.obtain()
    path.unlink()  # as what cleans temporary folders may do
    assert build.obtain() == path
    assert path.exists()
    assert here.left_behind() == []


def test_an_error_of_the_file_system_is_a_reason(here):
    key = cache.key()
    (cache.writable(key) / f"{key.compilers}.lock").mkdir()
    with pytest.raises(build.NotBuilt, match=r"cannot be compiled: .*Is a directory"):
        build.obtain()


@pytest.mark.parametrize("home", ["LRFUSED_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_the_cache_is_where_the_environment_says(home, here, monkeypatch):
    monkeypatch.delenv("LRFUSED_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored
    monkeypatch.setenv(home, str(here.folder / "h"))
    folder = {"LRFUSED_CACHE": "h", "XDG_CACHE_HOME": "h/lrfused", "HOME": "h/.cache/lrfused"}[home]
    assert cache.writable(cache.key()).parent == here.folder / folder


@pytest.fixture
def none_installed(here, monkeypatch):
    """Let there be no extension that was installed with lrfused."""
    monkeypatch.setattr(build_record, "reason_not_to_load", lambda record: "there is none")
    return here


def test_never_leaves_it_to_the_command(none_installed, monkeypatch, capsys):
    monkeypatch.setenv("LRFUSED_BUILD", "never")
    with pytest.raises(build.NotBuilt, match="LRFUSED_BUILD=never; `lrfused build` compiles it"):
        build.obtain()
    assert main(["build"]) == 0
    monkeypatch.setenv("CXXFLAGS", "-O1")  # nothing is compiled with it
    assert capsys.readouterr().out == f"lrfused build: {build.obtain()}\n"


@pytest.mark.parametrize("value", ["", "0", "Never"])
def test_another_value_is_refused(value, none_installed, monkeypatch, capsys):
    monkeypatch.setenv("LRFUSED_BUILD", value)
    with pytest.raises(ValueError, match="LRFUSED_BUILD must be 'auto' or 'never', got"):
        build.obtain()
    assert main(["build"]) == 2
    assert capsys.readouterr().err.startswith("lrfused build: LRFUSED_BUILD must be")


@pytest.mark.parametrize("there", [True, False], ids=["rich", "plain"])
def test_the_command_shows_progress_and_builds_again_when_asked(
    there, none_installed, monkeypatch, capfd
):
    if there:
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["build"]) == 0
    told = capfd.readouterr().err
    assert "compiles its extension" in told
    assert ("compiling" in told) is there
    assert main(["build"]) == 0
    assert none_installed.compiled() == 2
    (none_installed.folder / "fail").touch()
    assert main(["build", "--again"]) == 2
    assert "csrc/small.cpp:1:1: error: planted" in capfd.readouterr().err


def test_the_command_leaves_alone_what_was_installed_and_fits(here, monkeypatch, capsys):
    monkeypatch.setattr(build_record, "reason_not_to_load", lambda record: None)
    assert main(["build"]) == 0
    assert "fits this torch" in capsys.readouterr().out
    assert here.compiled() == 0
