"""Changes by hand: torch's schedulers are lent to the user, and what was changed is taken over."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import program
from ..checkpoint.scheduler_state import refuse_another_kind
from .bound import set_rate

if TYPE_CHECKING:
    from .rates import Rates

Groups = list[dict[str, Any]]


class Saved:
    """The attributes of an object, to be restored: the same lists and dicts with their entries."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        self._attributes, self._values = attributes, dict(attributes)
        self._entries = {
            k: copy.copy(v) for k, v in attributes.items() if isinstance(v, (list, dict))
        }

    def restore(self) -> None:
        """Put back every value, and the entries of lists and dicts."""
        self._attributes.clear()
        self._attributes.update(self._values)
        for key, entries in self._entries.items():
            value = self._values[key]
            value.clear()
            value.extend(entries) if isinstance(value, list) else value.update(entries)


class Watched(NamedTuple):
    """A list or dict of a torch scheduler that the user was given, and a copy from then."""

    owner: Any
    name: str
    before: Any

    @property
    def now(self) -> Any:
        """Return the scheduler's list or dict."""
        return getattr(self.owner, self.name)


def lend(rates: Rates, groups: Groups) -> None:
    """Bring torch's schedulers, and the groups of their probes, up to date."""
    rates.sync(groups)
    for b in rates.bound:
        b.take(groups, rates.moved.cells)


@contextmanager
def edit(rates: Rates, groups: Groups, strict: bool = False) -> Iterator[None]:
    """Lend torch's schedulers to be changed, or stepped; then take over rates and settings.

    An error leaves everything as it was; if `strict`, one of the next schedule step does too.
    """
    lend(rates, groups)
    rates.keep()
    epochs, moved = [b.epoch for b in rates.bound], rates.moved.epochs.clone()
    plateaus = [program.plateau_state(p) for b in rates.bound for p in b.plateaus]
    states, cells = rates.plateaus.by_index(rates.moved.plateau_states), rates.moved.cells.clone()
    saved = [Saved(own) for b in rates.bound for own in b.attributes()]
    kept, numbers = [dict(group) for group in groups], list(map(rates.rate, range(len(groups))))
    ended = [b.error is not None for b in rates.bound]
    try:
        yield
        for b, before in zip(rates.bound, epochs, strict=True):
            b.give(groups, rates.moved.cells)
            b.start()
            if b.epoch != before:
                rates.moved.epochs[b.indices] = b.epoch
        now = [program.plateau_state(p) for b in rates.bound for p in b.plateaus]
        rates.restart(groups, states if now == plateaus else None)
        for b, had in zip(rates.bound, ended, strict=True):
            if strict and not had:
                b.refuse_to_go_on()
    except BaseException:
        for each in saved:
            each.restore()
        for group, entries, rate in zip(groups, kept, numbers, strict=True):
            group.clear()
            group.update(entries)
            set_rate(group, rate)
        for b in rates.bound:
            b.start()
        rates.moved.epochs.copy_(moved)
        rates.moved.cells.copy_(cells)
        rates.restart(groups, states)
        raise


def watch(rates: Rates, owner: Any, name: str) -> None:
    """Take over later changes inside a scheduler's list or dict, which the user was given."""
    rates.disturb()
    if not any(w.owner is owner and w.name == name for w in rates.watched):
        rates.watched.append(Watched(owner, name, copy.copy(getattr(owner, name))))


def watch_again(rates: Rates) -> None:
    """Compare later changes with what the lists and dicts are now."""
    rates.watched = [Watched(w.owner, w.name, copy.copy(w.now)) for w in rates.watched]


def take_watched(rates: Rates, groups: Groups) -> None:
    """Take over what the user has changed in the lists and dicts; raise for what cannot be."""
    watched = rates.watched
    if all(w.now == w.before for w in watched):
        return
    for w in watched:
        refuse_another_kind(w.name, w.before, w.now)
    rates.watched = []
    try:
        with edit(rates, groups, strict=True):
            pass
    except BaseException:
        rates.watched = watched  # refused again, until the user has mended it
        raise
    for w in watched:
        watch(rates, w.owner, w.name)


def take_read(rates: Rates, groups: Groups) -> None:
    """Take over entries of the groups that a schedule reads; raise for what cannot be."""
    read, rates.read = rates.read, []
    try:
        with edit(rates, groups, strict=True):
            pass
    except BaseException:
        rates.read = read  # refused again, until the user has mended it
        raise
