"""benchmarks/gpu.py rehearsed on the CPU: that its one command would run to its table."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU it is run itself")
def test_a_rehearsal_validates_and_ends_with_a_table(tmp_path):
    path = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--rehearse", "--rounds", "2", "--json", path],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    table = done.stdout.splitlines()
    words = ("ResNet-50, float32", "10,000 of 64, bfloat16", "of copy", "torch fused")
    for word in (*words, "ViT-L/16, float32, clipped", "ResNet-50, bfloat16, masters"):
        assert any(word in line for line in table), word
    ours = [line for line in table if line.strip().startswith("lrfused")]
    assert ours
    case = ""
    for line in table[2:]:
        case = case if line.startswith(" ") else line
        if line in ours and ("float32" in case or "clipped" in case or "masters" in case):
            assert "*" not in line, case
    assert path.exists()
