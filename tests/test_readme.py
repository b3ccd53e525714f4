"""The README says what is so: its code runs, and its figures are the newest measured."""

import re
import subprocess
import sys
from pathlib import Path

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

ROOT = Path(__file__).resolve().parent.parent


def rate_after(steps, make):
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1, momentum=0.9)
    scheduler = make(optimizer)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return optimizer.param_groups[0]["lr"]


def test_the_readme_code_prints_torchs_rates():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    rates = [
        rate_after(3, lambda optimizer: CosineAnnealingLR(optimizer, T_max=100)),
        rate_after(3, lambda optimizer: OneCycleLR(optimizer, max_lr=0.5, total_steps=100)),
    ]
    for block, rate in zip(blocks, rates, strict=True):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) == rate


def test_the_readme_figures_are_the_newest():
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "readme.py", "--check"])
    assert done.returncode == 0, "run benchmarks/readme.py"
