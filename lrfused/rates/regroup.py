"""A list of groups that has changed: groups removed, added, replaced, or stepped one at a time.

A group is known by its dict; one in a new dict by its parameters.
"""

from __future__ import annotations

from operator import is_, methodcaller
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..checks import settings
from ..checks.refusals import as_float
from ..schedules.base import Schedules, are_same, as_schedules
from . import binding, edits, places
from .places import Kept
from .shown import as_rate
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
    _check(rates, groups)
    known = list(shown.groups)
    before = matched(known, groups)
    joining = {i: _joining(rates, i, group) for i, group in enumerate(groups) if before[i] is None}
    made = binding.make(rates, groups, {i: how.schedules for i, how in joining.items()})
    _settle_apart(rates, known, groups)
    found = {
        i: value
        for i, (j, value) in enumerate(zip(before, map(_SCHEDULE, groups), strict=True))
        if j is not None and _is_news(rates, j, value)
    }
    numbers = _Numbers(rates)
    _move_slots(rates, known, before)
    numbers.move(rates, groups, before)
    _join(rates, groups, joining, made)
    if groups and not any(j is not None for j in before):  # stepped one at a time
        places_back = [how.place for how in joining.values() if how.place and how.slot]
        rates.clock.since = next((int(p["steps_since"]) for p in places_back), rates.clock.since)
    rates.restart(groups, numbers.plateaus(before, joining))
    for i, place in found.items():
        groups[i]["schedule"] = place  # of a loaded group; `begin` loads it
    numbers.keep(rates, before)
    edits.watch_again(rates)
    was = {before.index(j) for j in rates.returned if j in before}
    rates.returned = was | {i for i, how in joining.items() if how.slot is not None}
    rates.regrouped = True


def _is_news(rates: Rates, j: int, value: Any) -> bool:
    """Return whether what stands in place of group j's place is neither that nor its schedules."""
    b = rates.bound_to(j)
    if value is None or value is rates.shown.places[j]:
        return False
    if isinstance(value, dict) or b is None:
        return True
    return not are_same(as_schedules(value), b.schedules)  # torch puts the default into new dicts


def _settle_apart(rates: Rates, known: Groups, groups: Groups) -> None:
    """Bring all numbers up to date; show those of a group that left in its dict where ours were.

    Nothing is read from such a dict: it may be another optimizer's by now.
    """
    shown = rates.shown
    here = set(map(id, groups))
    left = {j: group for j, group in enumerate(known) if id(group) not in here}
    ours = {j: shown.entries(j) for j in left}
    shown.groups[:] = [{**g, **ours[j]} if j in left else g for j, g in enumerate(known)]
    try:
        rates.sync(shown.groups)
    except BaseException:
        shown.groups[:] = known
        raise
    for j, group in left.items():
        now = shown.entries(j)
        if j not in shown.followed:
            now["lr"] = float(now["lr"])  # it may be a cell, which another group gets
        group.update({k: now[k] for k, value in ours[j].items() if group.get(k) is value})


def _check(rates: Rates, groups: Groups) -> None:
    """Raise for a list of groups that cannot be taken over."""
    known = rates.shown.groups
    appended = len(groups) >= len(known) and all(map(is_, groups, known))
    if rates.program.recording or (rates.program.captured and not appended):
        raise RuntimeError(
            "param_groups can only be added to once a step was captured into a CUDA graph, whose "
            "replays go on with the groups of then: construct a new optimizer, and load this one's "
            "state"
        )
    if len(groups) > rates.moved.capacity:
        raise ValueError(f"an optimizer holds at most {rates.moved.capacity} parameter groups")
    if len({id(group) for group in groups}) < len(groups):
        raise ValueError("param_groups has one group twice")
    params = [p for group in groups for p in set(group["params"])]
    if len(set(params)) < len(params):
        raise ValueError("some parameters appear in more than one parameter group")
    for i, group in enumerate(groups):
        as_rate(i, group["lr"])
        if "momentum" in group:
            as_float(f"param_groups[{i}]['momentum']", group["momentum"])


def matched(known: Groups, groups: Groups) -> list[int | None]:
    """Return for each group the index it had, by its dict, or by a parameter of it."""
    by_dict = {id(group): j for j, group in enumerate(known)}
    before = [by_dict.get(id(group)) for group in groups]
    left = set(range(len(known))).difference(j for j in before if j is not None)
    by_param = {id(p): j for j in left for p in known[j].get("params", ())}
    for i, group in enumerate(groups):
        if before[i] is not None:
            continue
        for p in group["params"]:
            j = by_param.get(id(p))
            if j in left:  # else another part of that group has its place
                before[i] = j
                left.discard(j)
                break
        if not group["params"] and i in left and not known[i].get("params"):
            before[i] = i  # a rank of ZeRO has groups without parameters
            left.discard(i)
    return before


def _joining(rates: Rates, i: int, group: dict[str, Any]) -> Joining:
    """Return how a new group joins; raise ValueError or TypeError if it cannot."""
    settings.refuse(i, group, rates.settings)
    value = group.get("schedule", rates.default)
    if value is None:
        return Joining()
    every = [*rates.bound, *rates.away]
    schedules = rates.default if isinstance(value, dict) else as_schedules(value)
    if isinstance(value, dict):
        place = places.check_form(i, value)
        for b in every:
            for slot in b.slots:
                if slot.index is None and slot.is_of(group):
                    return Joining(b, slot, place=place)
        for j, template in enumerate(rates.shown.templates):
            if template is not None and place["schedulers"] is template["schedulers"]:
                shared = rates.bound_to(j)
                assert shared is not None
                shared.refuse_joining()  # a copy of a group's dict joins where that group is
                return Joining(shared, place=place)
    for b in every:
        if are_same(schedules, b.schedules):
            b.refuse_joining()
            return Joining(b)
    return Joining(schedules=schedules)


def _move_slots(rates: Rates, known: Groups, before: list[int | None]) -> None:
    now = {j: i for i, j in enumerate(before) if j is not None}
    for b in rates.bound:
        for slot in b.slots:
            j = slot.index
            if j is None:
                continue
            if j in now:
                slot.index = now[j]
                continue
            slot.used = rates.moved.used[j].item()
            slot.overwritten = rates.overwritten.get(j)
            slot.leave(known[j], known[j].get("params", []))


def _join(
    rates: Rates, groups: Groups, joining: dict[int, Joining], made: list[BoundSchedules]
) -> None:
    for i, how in joining.items():
        b = how.bound
        if b is None:
            continue
        rates.moved.epochs[i] = int(how.place["epoch"]) if how.place else rates.epoch(b)
        if how.slot is None:
            b.join(i, groups[i])
            continue
        how.slot.index = i
        rates.moved.used[i] = how.slot.used
        if how.slot.overwritten is not None:
            rates.overwritten[i] = how.slot.overwritten
    binding.add(rates, groups, made)


class _Numbers:
    """The numbers of the groups, taken before the list changes."""

    def __init__(self, rates: Rates) -> None:
        moved, shown = rates.moved, rates.shown
        self._cells = moved.cells.reshape(-1, 2).clone()
        self._used, self._epochs = moved.used.clone(), moved.epochs.clone()
        self._overwritten = dict(rates.overwritten)
        self._states = rates.plateaus.by_index(moved.plateau_states)
        self._given, self._kept = rates.given, rates.kept
        self._shown = Kept(list(shown.rates), list(shown.momenta), list(shown.places))

    def move(self, rates: Rates, groups: Groups, before: list[int | None]) -> None:
        """Put the numbers of the groups that stay where they are now."""
        moved, shown, count = rates.moved, rates.shown, len(groups)
        columns = moved.history.new_full((len(moved.history), 2 + count), torch.nan)
        columns[:, :2] = moved.history[:, :2]
        rates.overwritten.clear()
        moved.used[:count] = torch.nan
        for i, j in enumerate(before):
            group = groups[i]
            if j is None:
                moved.cells[2 * i] = as_rate(i, group["lr"])
                continue
            if group["lr"] is shown.rates[j] and j not in shown.followed:  # it may be a cell
                group["lr"] = float(self._cells[j, 0])
            moved.cells.reshape(-1, 2)[i] = self._cells[j]
            moved.used[i], moved.epochs[i] = self._used[j], self._epochs[j]
            columns[:, 2 + i] = moved.history[:, 2 + j]
            if j in self._overwritten:
                rates.overwritten[i] = self._overwritten[j]
            if group.get("schedule") is None and group is not shown.groups[j]:
                group["schedule"] = shown.places[j]  # a loaded group that has none
        rates.moved = moved._replace(history=columns)
        shown.groups[:] = groups
        del shown.rates[count:]
        shown.followed.clear()

    def plateaus(
        self, before: list[int | None], joining: dict[int, Joining]
    ) -> dict[int, list[list[float]]]:
        """Return the states of each group's plateaus."""
        found = {i: self._states[j] for i, j in enumerate(before) if j in self._states}
        places_of = {i: how.place for i, how in joining.items() if how.place}
        return {**found, **{i: p["plateaus"] for i, p in places_of.items() if p.get("plateaus")}}

    def keep(self, rates: Rates, before: list[int | None]) -> None:
        """Keep what wrappers may still have of the groups that stay."""
        kept = self._kept or self._shown
        rates.kept = _moved(kept, before)
        rates.given = self._given and _moved(self._given, before)


def _moved(kept: Kept, before: list[int | None]) -> Kept:
    """Return what was kept of the groups, each where it is now; None for a new one."""
    return Kept(*([None if j is None or not own else own[j] for j in before] for own in kept))
