"""The settings of an optimizer that no group has for itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .refusals import take_numbers

OF_OPTIMIZER = (
    "schedule_every", "amp", "advance", "max_grad_norm", "master_weights", "backend",
)  # fmt: skip


@contextmanager
def new_group(i: int, group: Any, defaults: dict[str, Any]) -> Iterator[None]:
    """Check a new group, and let torch add it; an error leaves its dict as it was."""
    if not isinstance(group, dict):
        yield
        return
    before = dict(group)
    try:
        _refuse(i, group, defaults)
        take_numbers(i, group)
        yield
    except Exception:
        group.clear()
        group.update(before)
        raise
    for key in OF_OPTIMIZER:
        group.pop(key, None)


def take_out(groups: Iterable[dict[str, Any]], schedule: Any) -> None:
    """Take the optimizer's schedule out of the dicts of groups that a failed constructor had."""
    for group in groups:
        if group.get("schedule") is schedule or isinstance(group.get("schedule"), dict):
            del group["schedule"]


def _refuse(i: int, group: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise ValueError for a setting of the optimizer in a new group; drop what was left there.

    A group's dict may have been another optimizer's, whose place in its schedule it has.
    """
    for key in OF_OPTIMIZER:
        if key in group and group[key] != defaults[key]:
            raise ValueError(
                f"param_groups[{i}][{key!r}] = {group[key]!r}: it is a setting of the optimizer, "
                f"FusedDecaySGD({key}=...), and not of a group"
            )
    place = group.get("schedule")
    if isinstance(place, dict):
        if "own" in place:
            raise ValueError(
                f"param_groups[{i}]['schedule'] is the place of another optimizer in a schedule of "
                "the group's own: put the schedule there again"
            )
        del group["schedule"]
