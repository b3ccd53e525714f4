"""The settings of an optimizer that no group has for itself."""

from __future__ import annotations

from typing import Any

OF_OPTIMIZER = (
    "schedule_every", "amp", "advance", "max_grad_norm", "master_weights", "backend",
)  # fmt: skip


def refuse(i: int, group: dict[str, Any], defaults: dict[str, Any]) -> None:
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
