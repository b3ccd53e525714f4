"""The groups' hyper-parameters as the kernels read them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import Groups


def hypers_of(groups: Groups, momentum_cells: dict[int, int]) -> Tensor:
    """Return the table of hyper-parameters, fp64 [G, 8]: step.py.

    momentum_cells: by group, the cell of a momentum that a schedule cycles.
    """
    rows = [
        (
            -1.0 if group["maximize"] else 1.0,
            float(group["weight_decay"]),
            0.0 if g in momentum_cells else float(group["momentum"]),
            1 - float(group["dampening"]),
            float(float(group["weight_decay"]) != 0),
            float(bool(group["nesterov"])),
            float(2 * g),
            float(momentum_cells.get(g, -1)),
        )
        for g, group in enumerate(groups)
    ]
    return torch.tensor(rows, dtype=torch.float64, device="cpu")
