"""The scripts in examples/ run, say what they are about, and learn."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "accelerate_loop": ["accelerate"],
    "hf_trainer": ["accelerate", "transformers"],
    "lightning_digits": ["lightning"],
    "swa": [],
    "timm_schedule": ["timm"],
}
# test_robust.py runs atomic_checkpoint, and kills it.
SCRIPTS = sorted(set((ROOT / "examples").glob("*.py")) - {ROOT / "examples/atomic_checkpoint.py"})


def test_every_script_is_known_here():
    assert [script.stem for script in SCRIPTS] == sorted(PACKAGES)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_recognises_digits(script, tmp_path):
    for package in PACKAGES[script.stem]:
        if find_spec(package) is None:
            pytest.skip(f"the example is for the package {package}")
    # timm wants a torchvision, and this example does not.
    runner = [ROOT / "tests" / "support" / "bare_timm.py"] if script.stem == "timm_schedule" else []
    done = subprocess.run(
        [sys.executable, *runner, script],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert float(re.search(r"accuracy (\S+)$", last)[1]) > 0.85, done.stdout
    assert not list(tmp_path.iterdir()), "it left something behind"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_says_how_it_is_run(script):
    assert f"\n    python examples/{script.name}\n" in script.read_text()
