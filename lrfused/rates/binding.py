"""Schedules bound to the groups of an optimizer, and groups that get others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..outside_modes import outside_modes
from ..schedules.base import Schedules, are_same, shared_schedules
from .bound import BoundSchedules
from .slot import Slot

if TYPE_CHECKING:
    from .rates import Rates

Groups = list[dict[str, Any]]


def make(rates: Rates, groups: Groups, schedules: Mapping[int, Schedules]) -> list[BoundSchedules]:
    """Return schedules bound to groups, by index; groups with the same ones share them."""
    made = [
        BoundSchedules(own, [groups[i] for i in indices], [Slot(i) for i in indices])
        for own, indices in shared_schedules(schedules)
    ]
    if len({id(g) for b in [*rates.bound, *made] for g in b.process_groups}) > 1:
        raise ValueError(
            "ReduceLROnPlateau(process_group=...) must be the same in every plateau of an "
            "optimizer, which are fed the same metric"
        )
    return made


def add(rates: Rates, groups: Groups, made: Sequence[BoundSchedules], fresh: bool = True) -> None:
    """Add bound schedules; if `fresh`, with the rates that torch's constructors set."""
    for b in made:
        if fresh:
            b.give(groups, rates.moved.cells)
        rates.moved.epochs[b.indices] = b.epoch
    every = [*rates.bound, *rates.away, *made]
    rates.bound = [b for b in every if b.indices]
    rates.away = [b for b in every if not b.indices and _may_come_back(rates, b)]


def _may_come_back(rates: Rates, b: BoundSchedules) -> bool:
    """Return whether a group may join schedules that have none: the default, or one that left."""
    return are_same(b.schedules, rates.default) or not all(slot.is_free for slot in b.slots)


@outside_modes
def rebind(rates: Rates, groups: Groups, schedules: Mapping[int, Schedules]) -> None:
    """Replace the schedules of groups, by index."""
    made = make(rates, groups, schedules)
    for b in rates.bound:
        for slot in b.slots:
            if slot.index in schedules:
                slot.give_up()
    add(rates, groups, made)
    rates.restart(groups)


def has_had(rates: Rates, group: Any) -> bool:
    """Return whether a group was among those of the optimizer before, or still is."""
    slots = (slot for b in [*rates.bound, *rates.away] for slot in b.slots)
    return any(group is known for known in rates.shown.groups) or (
        isinstance(group, dict) and any(s.index is None and s.is_of(group) for s in slots)
    )
