"""The settings of an optimizer that no group has for itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .refusals import take_numbers

OF_OPTIMIZER = (
    "schedule_every", "amp", "advance", "max_grad_norm", "master_weights", "backend",
)  # fmt: skip


@contextmanager
def new_group(i: int, group: Any, defaults: Mapping[str, Any], comes_back: bool) -> Iterator[None]:
    """Check a new group, and let torch add it; an error leaves its dict as it was.

    comes_back: whether it was this optimizer's before, and keeps its place.
    """
    if not isinstance(group, dict):
        yield
        return
    before = dict(group)
    try:
        refuse(i, group, defaults)
        if not comes_back:
            _drop_place(i, group)
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


def refuse(i: int, group: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise ValueError for a setting of the optimizer in a new group."""
    for key in OF_OPTIMIZER:
        if key in group and group[key] != defaults.get(key):
            raise ValueError(
                f"param_groups[{i}][{key!r}] = {group[key]!r}: it is a setting of the optimizer, "
                f"FusedDecaySGD({key}=...), and not of a group"
            )
    if group.get("differentiable"):
        raise ValueError(
            f"param_groups[{i}]['differentiable']: differentiable=True is not supported; use "
            "torch.optim.SGD"
        )


def _drop_place(i: int, group: dict[str, Any]) -> None:
    """Drop the place that a group had in another optimizer; raise for a schedule of its own."""
    place = group.get("schedule")
    if isinstance(place, dict):
        if "own" in place:
            raise ValueError(
                f"param_groups[{i}]['schedule'] is the place of another optimizer in a schedule of "
                "the group's own: put the schedule there again"
            )
        del group["schedule"]
