"""The sets of tensors that are stepped over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from lrfused.commands.bench import shapes

MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class Case:
    """A set of tensors to step over, and what is done beside the update.

    "clipped": gradients are, to MAX_GRAD_NORM. "masters": parameters have fp32 ones.
    """

    name: str
    shapes: list[tuple[int, ...]]
    dtype: torch.dtype
    beside: str = ""

    @property
    def bytes(self) -> int:
        """Count the bytes that must move: read p, g, m; write p, m.

        Clipping reads g once more. With masters p is only written, and the master and m are fp32.
        """
        size, wide = self.dtype.itemsize, torch.float32.itemsize
        each = {"": 5 * size, "clipped": 6 * size, "masters": 2 * size + 4 * wide}[self.beside]
        return each * shapes.elements(self.shapes)

    @property
    def arguments(self) -> dict[str, Any]:
        """Return FusedDecaySGD's arguments for it."""
        return {
            "": {},
            "clipped": {"max_grad_norm": MAX_GRAD_NORM},
            "masters": {"master_weights": True},
        }[self.beside]


def cases(shrink: int = 1) -> list[Case]:
    """List the cases, those that move few bytes first; `shrink` divides sizes, for a rehearsal."""
    sets = {
        "10,000 of 64": shapes.many_small(),
        "ResNet-50": shapes.resnet50(),
        "one of 100 M": shapes.one_large(),
        "ViT-L/16": shapes.vit_l16(),
    }
    plain = [
        Case(f"{name}, {str(dtype).removeprefix('torch.')}", shapes.shrunk(of, shrink), dtype)
        for name, of in sets.items()
        for dtype in (torch.float32, torch.bfloat16)
    ]
    more = [
        replace(case, name=f"{case.name}, {beside}", beside=beside)
        for case in plain
        for beside in ("clipped", "masters")
        if "64" not in case.name and (beside == "clipped" or case.dtype == torch.bfloat16)
    ]
    return sorted(plain + more, key=lambda case: case.bytes)
