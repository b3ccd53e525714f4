"""The groups' hyper-parameters as the kernels read them."""

from __future__ import annotations

from array import array

from ..base import Groups


def hypers_of(groups: Groups, momentum_cells: dict[int, int]) -> array[float]:
    """Return the table of hyper-parameters, fp64 [G, 8].

    A row: the gradient's sign, decay, momentum, 1 - dampening, whether there is decay, whether
    nesterov, the cell of the rate, the cell of the momentum or -1.

    momentum_cells: by group, the cell of a momentum that a schedule cycles.
    """
    table = array("d")
    for g, group in enumerate(groups):
        decay = float(group["weight_decay"])
        table.extend((
            -1.0 if group["maximize"] else 1.0,
            decay,
            0.0 if g in momentum_cells else float(group["momentum"]),
            1 - float(group["dampening"]),
            decay != 0,
            bool(group["nesterov"]),
            2 * g,
            momentum_cells.get(g, -1),
        ))  # fmt: skip
    return table
