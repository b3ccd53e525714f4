"""`lrfused run` follows a script into its processes: ranks, forked and spawned ones."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.backends("host", reason="the command leaves the backend to the optimizer"),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no distributed"),
]

ROOT = Path(__file__).resolve().parent.parent

TRAIN = """
import os, sys, torch

def train(steps):
    torch.set_num_threads(1)
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    for _ in range(steps):
        p.grad = torch.ones(3)
        optimizer.step()

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        return torch.ones(1)

if __name__ == "__main__":
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
        rank = torch.distributed.get_rank()
        train(3 + rank)
        torch.distributed.destroy_process_group()
        print(f"rank {rank}\\n", end="")
    else:
        train(2)
        for i, kind in enumerate(("fork", "spawn")):
            process = torch.multiprocessing.get_context(kind).Process(target=train, args=(3 + i,))
            process.start()
            process.join()
            print(process.exitcode)
        print(len(list(torch.utils.data.DataLoader(Data(), num_workers=1))))
"""


@pytest.fixture
def run(tmp_path):
    """Yield a function that runs a command line on TRAIN; it returns output and table."""
    folder = tempfile.mkdtemp()  # a socket's path is at most 108 characters long
    (tmp_path / "script.py").write_text(TRAIN)
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TMPDIR": folder,
    }

    def run(*command):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environment, capture_output=True,
            text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert list(Path(folder).glob("lrfused-*")) == []
        # Torch 2.9's Gloo prints to stdout, too.
        of_script = re.findall(r"^(?:rank )?\d+$", done.stdout, re.MULTILINE)
        return of_script, re.sub(" +", " ", done.stderr)

    yield run
    shutil.rmtree(folder)


def test_processes_of_a_script_are_rows_of_its_table(run):
    out, table = run("lrfused", "run", "--check", "2", "script.py")
    assert out == ["0", "0", "2"]
    assert "lrfused run: 3 of 3 optimizers replaced\n" in table
    steps = re.findall(r"^ process \d+ SGD lrfused, \w+ (\d) ", table, re.MULTILINE)
    assert sorted(steps) == ["2", "3", "4"]
    assert "7 of 9 steps compared with torch's for-loop: every bit equal\n" in table


LAUNCH = ("torch.distributed.run", "--nproc-per-node=2", "--standalone")


def test_ranks_of_a_launcher_are_rows_of_its_table(run):
    out, table = run("lrfused", "run", "-m", *LAUNCH, "script.py")
    assert sorted(out) == ["rank 0", "rank 1"]
    assert "lrfused run: 2 of 2 optimizers replaced\n" in table
    rows = re.findall(r"^ (rank \d) SGD lrfused, \w+ (\d) ", table, re.MULTILINE)
    assert rows == [("rank 0", "3"), ("rank 1", "4")]


def test_under_a_launcher_rank_0_prints_the_table(run):
    out, table = run(*LAUNCH, "-m", "lrfused", "run", "--check", "1", "script.py")
    assert sorted(out) == ["rank 0", "rank 1"]
    assert table.count("steps made by") == 1
    assert "lrfused run, rank 1: 1 of 1 optimizer replaced; 3 of 4 steps compared" in table
