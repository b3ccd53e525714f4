"""The slot of a group in the schedules that it shares."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor


class Slot:
    """Hold where a group is in `param_groups`: `index`, None after it has left.

    A group that has left is known by its first parameter, as long as that lives.
    """

    def __init__(self, index: int) -> None:
        self.index: int | None = index
        self._owner: weakref.ref[Tensor] | None = None

    def leave(self, group: dict[str, Any]) -> None:
        """Keep the slot for a group that is no longer in `param_groups`."""
        self.index = None
        self._owner = next(map(weakref.ref, group["params"]), None)

    def give_up(self) -> None:
        """Keep the slot for no group."""
        self.index = self._owner = None

    def is_of(self, params: Iterable[Tensor]) -> bool:
        """Return whether the group that has left had the first of its parameters among these."""
        owner = self._owner() if self._owner is not None else None
        return owner is not None and any(p is owner for p in params)
