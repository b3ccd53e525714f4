"""The README's figures are the newest measured; test_docs.py runs its code."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_readme_figures_are_the_newest():
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "readme.py", "--check"])
    assert done.returncode == 0, "run benchmarks/readme.py"
