"""Write checkpoints that a kill at any moment cannot spoil, and resume from the newest.

    python examples/atomic_checkpoint.py runs/first --steps 200

Interrupt it as you like and start it again: it ends with the bits of an uninterrupted run.
"""

import argparse
import os
from pathlib import Path

import torch

from lrfused import CosineAnnealingLR, FusedDecaySGD, ReduceLROnPlateau, warmup

KEPT = 2  # checkpoints: a second one, in case the disk loses the newest


def save(folder: Path, step: int, state: dict) -> None:
    """Write a checkpoint under another name, put it on the disk, and only then name it so."""
    partial = folder / f"step-{step:09d}.partial"
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / f"step-{step:09d}.pt")  # atomic: the old one or the new one
    directory = os.open(folder, os.O_RDONLY)
    os.fsync(directory)  # the name is on the disk too
    os.close(directory)
    for old in sorted(folder.glob("step-*.pt"))[:-KEPT]:
        old.unlink()


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint; files of this name are whole. Remove partial files."""
    for partial in folder.glob("step-*.partial"):
        partial.unlink()
    return max(folder.glob("step-*.pt"), default=None)


def build() -> tuple[torch.nn.Module, FusedDecaySGD]:
    """Make the model and its optimizer."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    schedule = [warmup(CosineAnnealingLR(150), 10), ReduceLROnPlateau(patience=2, factor=0.7)]
    optimizer = FusedDecaySGD(model.parameters(), lr=0.1, momentum=0.9, schedule=schedule)
    return model, optimizer


def train(folder: Path, steps: int) -> tuple[torch.nn.Module, FusedDecaySGD]:
    """Train up to so many steps, from the newest checkpoint on where there is one."""
    model, optimizer = build()
    step, path = 0, newest(folder)
    if path is not None:
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    while step < steps:
        batch = torch.Generator().manual_seed(step)  # the data of a step depend on its number alone
        inputs = torch.randn(32, 16, generator=batch)
        loss = (model(inputs) - inputs[:, :4].cumsum(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        optimizer.scheduler.step(loss.detach())
        step += 1
        state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        save(folder, step, state)
    return model, optimizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train, and go on where a kill ended it.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    _, trained = train(arguments.folder, arguments.steps)
    print(f"step {arguments.steps}, lr {trained.param_groups[0]['lr']}")
