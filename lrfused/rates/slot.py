"""The slot of a group in the schedules that it shares."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

Group = dict[str, Any]


class Slot:
    """Hold where a group is in `param_groups`: `index`, None after it has left.

    A group that has left is known by its first parameter, as long as that lives. used: the rate of
    its last step, and overwritten: what `Rates.overwritten` had of it.
    """

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.used = torch.nan
        self.overwritten: tuple[int, float] | None = None
        self._param: weakref.ref[Tensor] | None = None
        self._empty: Group | None = None  # a group without parameters is known by its dict

    def leave(self, group: Group, params: list[Tensor]) -> None:
        """Keep the slot for a group that is no longer in `param_groups`."""
        self.index = None
        self._param = next(map(weakref.ref, params), None)
        self._empty = None if params else group

    def give_up(self) -> None:
        """Keep the slot for no group."""
        self.index = self._param = self._empty = None

    def is_of(self, group: Group) -> bool:
        """Return whether this is the group that has left, by its first parameter then."""
        param = self._param() if self._param is not None else None
        if param is None:
            return self._empty is group
        return any(p is param for p in group.get("params", ()))

    @property
    def is_free(self) -> bool:
        """Return whether no group has the slot, or can come back to it."""
        gone = self._param is None or self._param() is None
        return self.index is None and gone and self._empty is None
