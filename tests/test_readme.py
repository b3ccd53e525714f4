"""The README says what is so: its code runs, and its figures are the newest measured."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_readme_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert 0.099 < float(done.stdout) < 0.1


def test_the_readme_figures_are_the_newest():
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "readme.py", "--check"])
    assert done.returncode == 0, "run benchmarks/readme.py"
