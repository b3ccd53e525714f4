"""The places of schedules in the groups: made, told from what else is found there, and loaded.

A wrapper may copy its groups over the optimizer's, or replace them by loaded ones; a user may write
a schedule. `group["schedule"]` shows which.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ..checks.numbers import plain
from ..program import FOREVER
from ..schedules.base import Schedules, are_same, as_schedules
from . import binding

if TYPE_CHECKING:
    from .bound import BoundSchedules
    from .rates import Rates

Groups = list[dict[str, Any]]
Place = dict[str, Any]


class Kept(NamedTuple):
    """The entries of the groups after the last optimizer step, which a wrapper's may still have."""

    rates: list[Any]
    momenta: list[Any]
    places: list[Place | None]


def templates(rates: Rates) -> list[Place | None]:
    """Return the place of each group without its epoch, None for one without a schedule."""
    made: list[Place | None] = [None] * len(rates.shown.groups)
    for b in rates.bound:
        states = copy.deepcopy([_without_tensors(s) for s in _states_at_first(rates, b)])
        own = {} if are_same(b.schedules, rates.default) else {"own": True}
        for i in b.indices:
            made[i] = {"schedulers": states, "steps_since": rates.clock.since, **own}
    return made


def packed(rates: Rates, i: int) -> Place | None:
    """Return a group's place with the states that its schedulers have now, after `sync`."""
    b = rates.bound_to(i)
    place = rates.shown.places[i]
    if b is None or place is None:
        return None
    states = _states_at_first(rates, b)
    kept = {"metrics": 0} if "metrics" in place else {}
    return {**place, **kept, "schedulers": states, "steps_since": rates.clock.since}


def _states_at_first(rates: Rates, b: BoundSchedules) -> list[dict[str, Any]]:
    """Return the schedulers' states at the lowest epoch of their groups."""
    now, epochs = b.epoch, rates.moved.epochs[b.indices].tolist()
    b.go_to(min(epochs, default=now))
    states = b.plain_state()
    b.go_to(now)
    return states


def _without_tensors(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state without tensors, such as a recorded tape: settings, and no JSON."""
    return {key: value for key, value in state.items() if not isinstance(value, Tensor)}


# -- what was written there ----------------------------------------------------------------------


def take(rates: Rates, groups: Groups, placed: dict[int, Any]) -> None:
    """Follow what was found, by group, where another place was shown; raise if it cannot.

    A place of ours that is out of date was copied there by a wrapper, with the rate beside it; a
    loaded place is loaded; a schedule begins; None ends one.
    """
    stale: dict[int, Kept | None] = {}
    loaded: dict[int, Place] = {}
    written: dict[int, Schedules] = {}
    for i, value in placed.items():
        b = rates.bound_to(i)
        if isinstance(value, dict):
            if _is_out_of_date(rates, i, value):
                stale[i] = rates.kept
            else:
                loaded[i] = check_form(i, value)
            continue
        schedules = as_schedules(value)
        if b is not None and rates.given and are_same(schedules, b.schedules):
            stale[i] = rates.given  # as it was given to a wrapper
        else:
            written[i] = schedules
    check(rates, loaded)
    for i, kept in stale.items():
        _show_again(rates, i, groups[i], kept)
    if written:
        binding.rebind(rates, groups, written)
    if loaded:
        load(rates, groups, loaded)


def _show_again(rates: Rates, i: int, group: dict[str, Any], kept: Kept | None) -> None:
    """Show the place again, and the rate and momentum that a wrapper copied with an older one."""
    shown = rates.shown
    if kept is not None:
        if group["lr"] == kept.rates[i]:
            group["lr"] = shown.rates[i]
        if shown.momenta and shown.momenta[i] is not None and group["momentum"] == kept.momenta[i]:
            group["momentum"] = shown.momenta[i]
    group["schedule"] = shown.places[i]


def _is_out_of_date(rates: Rates, i: int, place: Place) -> bool:
    """Return whether a place is one of this optimizer's own, shown since its last step."""
    now, kept = rates.shown.places[i], rates.kept
    if now is None:
        return False
    before = (kept and kept.places[i]) or now
    if place is before:
        return True
    is_ours = place.get("schedulers") is now["schedulers"]  # a loaded one is a copy
    return is_ours and _age(before) <= _age(place)


def _age(place: Place) -> int:
    return int(place["epoch"]) + int(place.get("metrics", 0))


def check_form(i: int, place: Any) -> Place:
    """Return a place found in group i; raise ValueError for what is none."""
    name = f"param_groups[{i}]['schedule']"
    if not isinstance(place, dict) or not isinstance(place.get("schedulers"), (list, tuple)):
        raise ValueError(f"{name} is not one of lrfused's: {place!r}")
    for key in ("epoch", "steps_since", "metrics"):
        value = plain(place.get(key, 0))
        if type(value) is not int or not 0 <= value < FOREVER:
            raise ValueError(f"{name} has no integer {key!r} of at least 0, got {value!r}")
    return {"epoch": 0, "steps_since": 0, **place}


def check(rates: Rates, places: Mapping[int, Place], override: bool = False) -> None:
    """Raise ValueError unless the places, by group, can be loaded."""
    for i, place in places.items():
        b = rates.bound_to(i)
        if b is None:
            raise ValueError(
                f"the checkpoint has a schedule for group {i} and this optimizer has none: "
                "construct it with the schedule, or set the group's 'schedule' to None"
            )
        b.check(_completed(b, place), override)
        rows = place.get("plateaus", [])
        if len(rows) not in (0, len(b.plateaus)) or not all(map(_is_row, rows)):
            raise ValueError(
                f"param_groups[{i}]['schedule'] has states of {len(rows)} plateaus, not rows of 5 "
                f"numbers for {len(b.plateaus)}"
            )


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, (list, tuple))
        and len(row) == 5
        and all(isinstance(plain(x), (int, float)) for x in row)
    )


def _completed(b: BoundSchedules, place: Place) -> list[Any]:
    """Return the states of a place with the tensors that it leaves out."""
    states = []
    for state, own in zip(place["schedulers"], b.tensors(), strict=False):
        states.append({**own, **state} if isinstance(state, dict) else state)
    return [*states, *place["schedulers"][len(states) :]]


def load(rates: Rates, groups: Groups, places: Mapping[int, Place]) -> None:
    """Load places that `check` let pass, by group, and the groups' rates."""
    by_bound: dict[int, list[int]] = {}
    for i in places:
        by_bound.setdefault(id(rates.bound_to(i)), []).append(i)
    for b in rates.bound:
        indices = by_bound.get(id(b), [])
        if not indices:
            continue
        b.load(_completed(b, places[indices[0]]))
        metrics = int(places[indices[0]].get("metrics", 0))
        for plateau in b.plateaus:
            plateau.last_epoch += metrics
        for i in indices:
            rates.moved.epochs[i] = int(places[i].get("epoch", b.epoch))
    for place in places.values():
        rates.clock.since = int(place.get("steps_since", rates.clock.since))
    rates.restart(groups, {i: p["plateaus"] for i, p in places.items() if p.get("plateaus")})
