"""Recognizing tensors that lie as they did at the last step, in bulk.

Nothing is taken on trust: every property that `slots.gather` looks at is looked at again, but by a
few loops that run in C, which takes a seventh of the time.
"""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter, is_
from typing import Any

from torch import Tensor

from ...arithmetic.masters import has_master
from .slots import BUFFER, Found

# What of a tensor decides whether, and how, it can be read through its address.
_TRAITS: tuple[Any, ...] = (
    type,
    attrgetter("dtype"),
    Tensor.get_device,
    Tensor.is_neg,
    attrgetter("shape"),
    Tensor.stride,
)


class Memory:
    """Hold what was found at the last step, beside the traits of the tensors it was found in."""

    def __init__(self) -> None:
        self._found: Found | None = None
        self._groups: list[tuple[int, bool]] = []
        self._master: str | None = None
        self._present: list[bool] = []  # of each parameter, whether it has a gradient
        self._traits: list[list[Any]] = []
        self._addresses: list[int] = []

    def recall(
        self, groups: list[dict[str, Any]], state: dict[Tensor, dict[str, Any]], master: str | None
    ) -> Found | None:
        """Return what is found now, if the tensors are like the last step's; None if not."""
        found = self._found
        if found is None or self._master != master or self._groups != _sizes(groups):
            return None
        tensors, present = _tensors(groups, state, master)
        if present != self._present:
            return None
        for trait, known in zip(_TRAITS, self._traits, strict=True):  # type first: None has none
            try:
                same = list(map(trait, tensors)) == known
            except RuntimeError:  # a sparse tensor has no strides
                return None
            if not same:
                return None
        addresses = list(map(Tensor.data_ptr, tensors))
        if addresses.count(0) != self._addresses.count(0):
            return None  # a tensor without memory is not for an address
        params = [p for slots in found.slots.values() for p in slots.params]
        count = len(params)
        if addresses != self._addresses or not all(map(is_, params, self._order(tensors[:count]))):
            self._addresses = addresses
            self._move(found, tensors)
        return self._found

    def remember(
        self,
        found: Found,
        groups: list[dict[str, Any]],
        state: dict[Tensor, dict[str, Any]],
        master: str | None,
    ) -> None:
        """Keep what was found, unless there is more to it than addresses."""
        self._found = None
        if found.odd or found.firsts:
            return
        self._groups, self._master = _sizes(groups), master
        tensors, self._present = _tensors(groups, state, master)
        self._traits = [list(map(trait, tensors)) for trait in _TRAITS]
        self._addresses = list(map(Tensor.data_ptr, tensors))
        self._found = found

    def _order(self, params: list[Tensor]) -> list[Tensor]:
        """Put parameters in the order of the slots."""
        assert self._found is not None
        if len(self._found.slots) == 1:
            return params
        return [params[i] for slots in self._found.slots.values() for i in slots.ranks]

    def _move(self, found: Found, tensors: list[Tensor]) -> None:
        """Put new addresses into the rows; the last step's are left to whoever holds them."""
        count = sum(self._present)
        each = [momentum for size, momentum in self._groups for _ in range(size)]
        momenta = [m for m, there in zip(each, self._present, strict=True) if there]
        params = tensors[:count]
        rest = iter(self._addresses[2 * count :])
        masters = [self._master is not None and has_master(p, self._master) for p in params]
        columns = (
            self._addresses[:count],
            self._addresses[count : 2 * count],
            [next(rest) if m else 0 for m in momenta],
            [next(rest) if m else 0 for m in masters],
        )
        addresses = list(zip(*columns, strict=True))
        slots = {}
        for kind, own in found.slots.items():
            pairs = zip(own.ranks, own.rows, strict=True)
            rows = [(*addresses[i], *row[4:]) for i, row in pairs]
            slots[kind] = replace(own, params=[params[i] for i in own.ranks], rows=rows)
        self._found = Found(slots)


def _sizes(groups: list[dict[str, Any]]) -> list[tuple[int, bool]]:
    return [(len(group["params"]), bool(group["momentum"] != 0)) for group in groups]


def _tensors(
    groups: list[dict[str, Any]], state: dict[Tensor, dict[str, Any]], master: str | None
) -> tuple[list[Any], list[bool]]:
    """Return parameters that have a gradient, gradients, momentum buffers, masters; which have."""
    everyone = [p for group in groups for p in group["params"]]
    grads = [p.grad for p in everyone]
    present = [grad is not None for grad in grads]
    if all(present):
        params = everyone
    else:
        params = [p for p, there in zip(everyone, present, strict=True) if there]
        grads = [grad for grad in grads if grad is not None]
    if len(state) == len(everyone) == len(params) and all(map(is_, state, params)):
        entries: list[Any] = list(state.values())  # without a look-up for each
    else:
        entries = [state.get(p) for p in params]
    momenta = [group["momentum"] != 0 for group in groups for _ in group["params"]]
    if not all(present):
        momenta = [m for m, there in zip(momenta, present, strict=True) if there]
    buffers = [own and own.get(BUFFER) for own, m in zip(entries, momenta, strict=True) if m]
    if master is None:
        return [*params, *grads, *buffers], present
    pairs = zip(params, entries, strict=True)
    masters = [own and own.get(master) for p, own in pairs if has_master(p, master)]
    return [*params, *grads, *buffers, *masters], present
