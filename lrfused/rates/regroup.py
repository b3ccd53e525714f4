"""A list of groups that has changed: groups removed, added, replaced, or stepped one at a time.

A group is known by its dict; one in a new dict by its parameters.
"""

from __future__ import annotations

from operator import methodcaller
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..checks.refusals import as_float
from ..schedules.base import Schedules, are_same, as_schedules
from . import places
from .slot import Slot

if TYPE_CHECKING:
    from .bound import BoundSchedules
    from .rates import Rates

Groups = list[dict[str, Any]]

_SCHEDULE = methodcaller("get", "schedule")


class Joining(NamedTuple):
    """A group that was not in the list before.

    bound: schedules whose other groups it joins, slot: the one that it had in them. schedules:
    those that begin with it. place: where it is in them, if it was in them before.
    """

    bound: BoundSchedules | None = None
    slot: Slot | None = None
    schedules: Schedules = None
    place: places.Place | None = None


def regroup(rates: Rates, groups: Groups) -> None:
    """Take over the list of groups; raise, and change nothing, if that cannot be."""
    shown = rates.shown
    if rates.program.captured or rates.program.recording:
        raise RuntimeError(
            "param_groups cannot be changed once a step was captured into a CUDA graph, which "
            "goes on with the groups of then: construct a new optimizer, and load this one's state"
        )
    if len(groups) > rates.moved.capacity:
        raise ValueError(f"an optimizer holds at most {rates.moved.capacity} parameter groups")
    if len({id(group) for group in groups}) < len(groups):
        raise ValueError("param_groups has one group twice")
    params = [p for group in groups for p in set(group["params"])]
    if len(set(params)) < len(params):
        raise ValueError("some parameters appear in more than one parameter group")
    known = list(shown.groups)
    rates.sync(known)
    before = matched(known, groups)
    joining = {i: _joining(rates, i, group) for i, group in enumerate(groups) if before[i] is None}
    made = rates.make_bound(groups, {i: how.schedules for i, how in joining.items()})
    found = {
        i: value
        for i, (j, value) in enumerate(zip(before, map(_SCHEDULE, groups), strict=True))
        if j is not None and value is not None and value is not shown.places[j]
    }
    numbers = _Numbers(rates)
    _move_slots(rates, known, before)
    numbers.move(rates, groups, before)
    _join(rates, groups, joining, made)
    rates.restart(groups, numbers.plateaus(rates, joining))
    for i, place in found.items():
        groups[i]["schedule"] = place  # of a loaded group; `begin` loads it
    rates.regrouped, rates.given, rates.kept = True, None, None
    was = {before.index(j) for j in rates.returned if j in before}
    rates.returned = was | {i for i, how in joining.items() if how.slot is not None}


def matched(known: Groups, groups: Groups) -> list[int | None]:
    """Return for each group the index it had, by its dict, or by a parameter of it."""
    by_dict = {id(group): j for j, group in enumerate(known)}
    before = [by_dict.get(id(group)) for group in groups]
    left = set(range(len(known))).difference(j for j in before if j is not None)
    by_param = {id(p): j for j in left for p in known[j]["params"]}
    for i, group in enumerate(groups):
        if before[i] is None and group["params"]:
            before[i] = next((by_param[id(p)] for p in group["params"] if id(p) in by_param), None)
        elif before[i] is None and i in left and not known[i]["params"]:
            before[i] = i  # a rank of ZeRO has groups without parameters
    return before


def _joining(rates: Rates, i: int, group: dict[str, Any]) -> Joining:
    """Return how a new group joins; raise ValueError or TypeError if it cannot."""
    as_float(f"param_groups[{i}]['lr']", group["lr"])
    value = group.get("schedule", rates.default)
    if value is None:
        return Joining()
    every = [*rates.bound, *rates.away]
    if not isinstance(value, dict):
        schedules = as_schedules(value)
        for b in every:
            if are_same(schedules, b.schedules):
                b.refuse_joining()
                return Joining(b)
        return Joining(schedules=schedules)
    place = places.check_form(i, value)
    for b in every:
        for slot in b.slots:
            if slot.index is None and slot.is_of(group["params"]):
                return Joining(b, slot, place=place)
    names = [state.get("name") for state in place["schedulers"] if isinstance(state, dict)]
    for b in every:
        if names == [type(member).__name__ for member in b.members]:
            b.refuse_joining()
            return Joining(b, place=place)
    raise ValueError(
        f"param_groups[{i}]['schedule'] is the place of {names}, and no schedule of this optimizer "
        "is of that kind: give the group a schedule of its own"
    )


def _move_slots(rates: Rates, known: Groups, before: list[int | None]) -> None:
    now = {j: i for i, j in enumerate(before) if j is not None}
    for b in rates.bound:
        for slot in b.slots:
            if slot.index is not None and slot.index in now:
                slot.index = now[slot.index]
            elif slot.index is not None:
                slot.leave(known[slot.index])


def _join(
    rates: Rates, groups: Groups, joining: dict[int, Joining], made: list[BoundSchedules]
) -> None:
    for i, how in joining.items():
        b = how.bound
        if b is None:
            continue
        rates.moved.epochs[i] = int(how.place["epoch"]) if how.place else rates.epoch(b)
        if how.slot is not None:
            how.slot.index = i
        else:
            b.join(i, groups[i])
    rates.add(groups, made)


class _Numbers:
    """The numbers of the groups, taken before the list changes."""

    def __init__(self, rates: Rates) -> None:
        moved = rates.moved
        self._cells = moved.cells.reshape(-1, 2).clone()
        self._used, self._epochs = moved.used.clone(), moved.epochs.clone()
        self._overwritten = dict(rates.overwritten)
        self._states = rates.plateaus.by_slot(moved.plateau_states)

    def move(self, rates: Rates, groups: Groups, before: list[int | None]) -> None:
        """Put the numbers of the groups that stay where they are now."""
        moved, shown, count = rates.moved, rates.shown, len(groups)
        columns = moved.history.new_full((len(moved.history), 2 + count), torch.nan)
        columns[:, :2] = moved.history[:, :2]
        rates.overwritten.clear()
        moved.used[:count] = torch.nan
        for i, j in enumerate(before):
            if j is None:
                continue
            if groups[i]["lr"] is shown.rates[j] and j not in shown.followed:  # it may be a cell
                groups[i]["lr"] = float(self._cells[j, 0])
            moved.used[i], moved.epochs[i] = self._used[j], self._epochs[j]
            columns[:, 2 + i] = moved.history[:, 2 + j]
            if j in self._overwritten:
                rates.overwritten[i] = self._overwritten[j]
        rates.moved = moved._replace(history=columns)
        shown.groups[:] = groups
        del shown.rates[count:]
        shown.followed.clear()

    def plateaus(self, rates: Rates, joining: dict[int, Joining]) -> dict[int, list[list[float]]]:
        """Return the states of each group's plateaus."""
        found = {}
        for b in rates.bound:
            for slot in b.slots:
                if slot.index is not None and slot in self._states:
                    found[slot.index] = self._states[slot]
        for i, how in joining.items():
            if how.place and how.place.get("plateaus"):
                found[i] = how.place["plateaus"]
        return found
