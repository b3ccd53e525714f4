"""Entries of a scheduler's state with one number for each group: of some of the groups, or all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

_TAPES = {"lrs", "momentums"}  # of a recorded scheduler, a column for each group
# Of torch's schedulers.
_LISTS = {
    "base_lrs", "max_lrs", "min_lrs", "base_momentums", "max_momentums", "_last_lr", "lr_lambdas",
}  # fmt: skip


def of_some(state: dict[str, Any], slots: Sequence[int], count: int) -> dict[str, Any]:
    """Return the state for the groups in these slots, of `count`, in their order."""
    if list(slots) == list(range(count)):
        return state

    def chosen(key: str, value: Any) -> Any:
        if key == "_schedulers":
            return [of_some(inner, slots, count) for inner in value]
        if key in _LISTS and isinstance(value, list) and len(value) == count:
            return [value[k] for k in slots]
        if key in _TAPES and isinstance(value, torch.Tensor):
            return value[:, list(slots)]
        return value

    return {key: chosen(key, value) for key, value in state.items()}


def of_all(state: Any, own: dict[str, Any], slots: Sequence[int], count: int) -> Any:
    """Return a state made by `of_some` with what the other slots have in `own`.

    A state of another form is returned as it is, to be refused.
    """
    if list(slots) == list(range(count)) or not isinstance(state, dict):
        return state

    def filled(key: str, value: Any) -> Any:
        before = own.get(key)
        if key in _TAPES and isinstance(value, torch.Tensor) and isinstance(before, torch.Tensor):
            if value.dim() == 2 and value.shape == (len(before), len(slots)):
                new_tape = before.clone()
                new_tape[:, list(slots)] = value
                return new_tape
            return value
        if not isinstance(value, list) or not isinstance(before, list):
            return value
        if key == "_schedulers" and len(value) == len(before):
            return [of_all(s, o, slots, count) for s, o in zip(value, before, strict=True)]
        if key in _LISTS and len(before) == count and len(value) == len(slots):
            new = list(before)
            for k, item in zip(slots, value, strict=True):
                new[k] = item
            return new
        return value

    return {key: filled(key, value) for key, value in state.items()}
