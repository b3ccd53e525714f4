"""The check that all ranks of a process group have the same rates."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..optimizer import FusedDecaySGD


def check_ranks(optimizer: FusedDecaySGD, process_group: Any = None) -> None:
    """Raise RuntimeError, on every rank, unless all have the same rates at the same epoch.

    Every rank of process_group, by default of the whole job, must call it; they wait for each
    other. Rates are compared as 64 bits. The error names ranks, epochs and rates.
    """
    import torch.distributed as dist  # a torch built without it has no process group

    handle = optimizer.scheduler
    rates = handle.get_last_lr()
    mine = struct.pack(f"<q{len(rates)}d", handle.last_epoch, *rates)
    members = dist.get_process_group_ranks(process_group)
    every: list[Any] = [None] * len(members)
    dist.all_gather_object(every, mine, group=process_group)
    holders: dict[bytes, list[int]] = {}
    for rank, each in zip(members, every, strict=True):
        holders.setdefault(each, []).append(rank)
    if len(holders) > 1:
        words = "; ".join(_words(each, ranks) for each, ranks in holders.items())
        raise RuntimeError(f"ranks hold different rates: {words}")


def _words(state: bytes, ranks: list[int]) -> str:
    epoch, *rates = struct.unpack(f"<q{len(state) // 8 - 1}d", state)
    names = ", ".join(map(str, ranks))
    return f"rank{'s' * (len(ranks) > 1)} {names} at epoch {epoch}: {', '.join(map(repr, rates))}"
