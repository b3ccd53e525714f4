"""Schedules made of other schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import lr_scheduler

from .base import Schedule
from .decays import LinearLR, PolynomialLR


def _members(schedule: str, schedulers: Any) -> list[Schedule]:
    if not isinstance(schedulers, (list, tuple)):
        raise TypeError(f"{schedule}(schedulers=...) must be a list, got {schedulers!r}")
    for member in schedulers:
        if not isinstance(member, Schedule):
            raise TypeError(f"{schedule}(schedulers=...) must be lrfused schedules, got {member!r}")
    return list(schedulers)


class SequentialLR(Schedule):
    """Run one schedule after another: at each milestone the next one starts, at its epoch 0.

    Only the first may itself be a SequentialLR or ChainedScheduler: torch breaks on a later one.
    Raises ValueError for a later one, and for a schedule that cannot start at a milestone. An
    optimizer refuses ReduceLROnPlateau as a member, as it needs metrics: list it beside this one.
    """

    torch_class = lr_scheduler.SequentialLR

    def __init__(
        self, schedulers: list[Schedule], milestones: list[int], last_epoch: int = -1
    ) -> None:
        members = _members("SequentialLR", schedulers)
        for i, member in enumerate(members[1:], start=1):
            if isinstance(member, (SequentialLR, ChainedScheduler)):
                raise ValueError(
                    f"SequentialLR(schedulers=...) has a {type(member).__name__} at index {i}, and "
                    "only the first may be one: list its members in the outer SequentialLR, with "
                    "their milestones counted from its start"
                )
            if isinstance(member, (LinearLR, PolynomialLR)) and member.total_iters == 0:
                # torch divides by it at the milestone.
                raise ValueError(
                    f"SequentialLR(schedulers=...) has a {type(member).__name__} at index {i} with "
                    "total_iters=0, which cannot start at a milestone"
                )
        super().__init__(schedulers=members, milestones=milestones, last_epoch=last_epoch)

    def bind(self, optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        """Construct the members on `optimizer`, in order, then torch's SequentialLR of them."""
        members = [member.bind(optimizer) for member in self.schedulers]
        return lr_scheduler.SequentialLR(optimizer, members, list(self.milestones), self.last_epoch)


class ChainedScheduler(Schedule):
    """Apply several schedules in every step, in order.

    An absolute one (LambdaLR, OneCycleLR, CyclicLR, CosineAnnealingWarmRestarts) overwrites the
    rate of those before it. A list of schedules does the same, and may hold ReduceLROnPlateau.
    """

    torch_class = lr_scheduler.ChainedScheduler

    def __init__(self, schedulers: Sequence[Schedule]) -> None:
        super().__init__(schedulers=_members("ChainedScheduler", schedulers))

    def bind(self, optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        """Construct the members on `optimizer`, in order, then torch's ChainedScheduler of them."""
        members = [member.bind(optimizer) for member in self.schedulers]
        return lr_scheduler.ChainedScheduler(members, optimizer)
