"""Refuse what no tape has: schedulers that write parameters, gradients or optimizer state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from ..outside_modes import outside_modes

_PARAMETER, _GRADIENT, _STATE = "a parameter", "a gradient", "optimizer.state"


class Guard(TorchDispatchMode):
    """Refuse operators that would write an optimizer's tensors, before they write.

    No copies are made, so that a large model needs no more memory. Writes that bypass torch, such
    as those through a numpy array that shares the memory, are not seen.
    """

    @outside_modes
    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__()
        self._state, self._entries = optimizer.state, _entries(optimizer.state)
        self._params = [p for group in optimizer.param_groups for p in group["params"]]
        self._data = [p.data for p in self._params]
        self._places = [_place(data) for data in self._data]
        self._grads = [p.grad for p in self._params]
        self._needing_grad = [p.requires_grad for p in self._params]
        self._refused: str | None = None
        tensors = [(_STATE, t) for own in self._entries.values() for t in own.values()]
        tensors += [(_GRADIENT, t) for t in self._grads]
        tensors += [(_PARAMETER, t) for t in self._data]
        # Views and detached tensors have the same storage, and `.data` counts no versions.
        self._storages = {
            key: kind for kind, t in tensors if isinstance(t, Tensor) for key in _storages(t)
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            for tensor in _written(func, args, kwargs):
                for key in _storages(tensor):
                    if key in self._storages:
                        self._refused = self._storages[key]
                        raise ValueError(f"{func} would write {self._refused}")
        return func(*args, **kwargs)

    @outside_modes
    def written(self, optimizer: Optimizer) -> str | None:
        """Return the name of something that was written or replaced, or None."""
        if self._refused is not None:
            return self._refused
        if optimizer.state is not self._state or not _are_same(
            _entries(self._state), self._entries
        ):
            return _STATE
        rows = zip(self._params, self._places, self._grads, self._needing_grad, strict=True)
        for p, place, grad, needs_grad in rows:
            if p.grad is not grad:
                return _GRADIENT
            if p.requires_grad != needs_grad or _place(p) != place:
                return _PARAMETER
        return None

    @outside_modes
    def restore(self) -> None:
        """Put back the tensors, gradients and state entries that were replaced or removed."""
        rows = zip(self._params, self._data, self._grads, self._needing_grad, strict=True)
        for p, data, grad, needs_grad in rows:
            if _place(p) != _place(data):
                p.data = data
            if p.requires_grad != needs_grad:
                p.requires_grad_(needs_grad)
            if p.grad is not grad:
                p.grad = grad
        if not _are_same(_entries(self._state), self._entries):
            self._state.clear()
            self._state.update({p: dict(own) for p, own in self._entries.items()})


def _entries(state: Any) -> dict[Any, dict[Any, Any]]:
    """Return the entries of each parameter's state; reading one's makes an empty one."""
    return {p: dict(own) for p, own in state.items() if own}


def _are_same(a: dict[Any, dict[Any, Any]], b: dict[Any, dict[Any, Any]]) -> bool:
    return a.keys() == b.keys() and all(
        a[p].keys() == own.keys() and all(_is_same(a[p][key], own[key]) for key in own)
        for p, own in b.items()
    )


def _is_same(a: Any, b: Any) -> bool:
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b))


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the tensors that an operator writes."""
    for i, declared in enumerate(func._schema.arguments):
        if declared.alias_info is not None and declared.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(declared.name)
            for one in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(one, Tensor):
                    yield one


def _storages(tensor: Any) -> tuple[int, ...]:
    """Return the ids of a tensor's storages; a DTensor's is that of its local part."""
    tensor = getattr(tensor, "_local_tensor", tensor)
    if tensor.layout is torch.sparse_coo:
        return (*_storages(tensor._indices()), *_storages(tensor._values()))
    if tensor.layout is not torch.strided:
        return ()
    return (tensor.untyped_storage()._cdata,)


def _place(tensor: Any) -> tuple[Any, ...]:
    """Return what differs once another tensor is assigned to `.data`."""
    offset = tensor.storage_offset() if tensor.layout is torch.strided else None
    return (tensor.shape, offset, *_storages(tensor))
