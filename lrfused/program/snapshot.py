"""Put objects back as they were, after a scheduler that holds them was run ahead.

Copying a scheduler would copy all that it holds: a model, a DataLoader, a lock that cannot be
copied. So it runs itself, and afterwards its numbers and containers are put back.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_LARGEST = 2**16  # elements of a tensor or an array that is kept; none of a schedule's is larger
_NUMBERS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
_CONTAINERS = (tuple, list, dict, set, deque)
_CALLABLES = (type, FunctionType, BuiltinFunctionType, MethodType, partial)


class Snapshot:
    """Hold the contents of everything that can be reached from some objects.

    These are schedulers, the groups of optimizers, containers, small tensors and arrays, what
    closures hold, generators of random numbers, and objects whose attributes are nothing else.
    Objects that hold others, such as threads, files, locks and modules, are left alone.
    """

    def __init__(self, *roots: Any) -> None:
        self._undo: list[Callable[[], Any]] = []
        self._seen: dict[int, Any] = {}  # keeps the objects alive, so that no id is used twice
        pending = list(roots)
        while pending:
            one = pending.pop()
            if not isinstance(one, _NUMBERS) and id(one) not in self._seen:
                self._seen[id(one)] = one
                pending.extend(self._keep(one))

    def restore(self) -> None:
        """Put back the contents."""
        with torch.no_grad():
            for undo in self._undo:
                undo()

    def _keep(self, one: Any) -> Iterable[Any]:
        """Keep the contents of one object; return the objects that it holds."""
        if isinstance(one, Tensor):
            if one.numel() <= _LARGEST and not one.requires_grad:
                version = None if one.is_inference() else one._version
                self._undo.append(partial(_put_back, one, one.detach().clone(), version))
            return ()
        if isinstance(one, (tuple, frozenset)):
            return one
        if isinstance(one, _CONTAINERS):
            return self._keep_container(one)
        if isinstance(one, _CALLABLES):
            return self._keep_callable(one)
        if isinstance(one, torch.Generator):
            self._undo.append(partial(one.set_state, one.get_state()))
        elif isinstance(one, Random):
            self._undo.append(partial(one.setstate, one.getstate()))
        elif not self._keep_of_numpy(one):
            return self._keep_object(one)
        return ()

    def _keep_container(self, one: Any) -> Iterable[Any]:
        if isinstance(one, list):
            saved = list(one)
            self._undo.append(partial(list.__setitem__, one, slice(None), saved))
            return saved
        own = type(one)
        if isinstance(one, dict):
            if own.clear not in (dict.clear, OrderedDict.clear):
                return ()  # of a class that does more than keep entries
            entries = dict(one)
            update = OrderedDict.update if isinstance(one, OrderedDict) else dict.update
            self._undo.append(partial(_refill, one, partial(update, one, entries)))
            return entries.values()
        items = list(one)
        add = one.extend if isinstance(one, deque) else one.update
        self._undo.append(partial(_refill, one, partial(add, items)))
        return items

    def _keep_callable(self, one: Any) -> Iterable[Any]:
        if isinstance(one, partial):
            return (one.func, one.args, one.keywords)
        if isinstance(one, MethodType):
            return (one.__func__, one.__self__)
        if not isinstance(one, FunctionType):
            return ()
        held = [vars(one), one.__defaults__, one.__kwdefaults__]
        for cell in one.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # empty
                continue
            self._undo.append(partial(setattr, cell, "cell_contents", content))
            held.append(content)
        return held

    def _keep_of_numpy(self, one: Any) -> bool:
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return False
        if isinstance(one, numpy.ndarray):
            if one.size <= _LARGEST and one.flags.writeable:
                self._undo.append(partial(numpy.copyto, one, one.copy()))
        elif isinstance(one, numpy.random.RandomState):
            self._undo.append(partial(one.set_state, one.get_state()))
        elif isinstance(one, numpy.random.Generator):
            bits = one.bit_generator
            self._undo.append(partial(setattr, bits, "state", bits.state))
        else:
            return isinstance(one, numpy.generic)
        return True

    def _keep_object(self, one: Any) -> Iterable[Any]:
        attributes = getattr(one, "__dict__", None)
        if type(attributes) is not dict or isinstance(one, torch.nn.Module):
            return ()
        values: list[Any] = list(attributes.values())
        if isinstance(one, Optimizer):
            values = [one.param_groups, one.defaults]
        elif not isinstance(one, LRScheduler) and not all(map(self._is_content, values)):
            return ()
        saved = dict(attributes)
        self._undo.append(partial(_refill, attributes, partial(attributes.update, saved)))
        return values

    def _is_content(self, value: Any) -> bool:
        kept = (*_NUMBERS, *_CONTAINERS, *_CALLABLES, Tensor, Random, torch.Generator)
        numpy = sys.modules.get("numpy")
        of_numpy = numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray))
        return of_numpy or isinstance(value, (*kept, LRScheduler, Optimizer))


def _put_back(tensor: Tensor, saved: Tensor, version: int | None) -> None:
    if version is None:
        with torch.inference_mode():
            tensor.copy_(saved)
    elif tensor._version != version:  # a needless copy could still break a backward pass
        tensor.copy_(saved)


def _refill(container: Any, add: Callable[[], Any]) -> None:
    container.clear()
    add()
