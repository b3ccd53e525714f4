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
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_LARGEST = 2**16  # elements of a tensor or an array that is kept; none of a schedule's is larger
_NUMBERS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
_CONTAINERS = (tuple, list, dict, set, deque)
_CALLABLES = (type, FunctionType, BuiltinFunctionType, MethodType, partial)
# Modules of the standard library whose classes only declare an interface.
_INTERFACES = ("abc", "typing", "collections.abc")
_EMPTY = object()


class Snapshot:
    """Hold the contents of everything that can be reached from some objects.

    These are schedulers, the groups of optimizers, containers, tensors and arrays of up to 65,536
    elements that need no gradient, what closures hold, generators of random numbers, and the
    attributes and slots of objects whose classes are the user's own, nested ones too. Left alone
    are modules, iterators, and objects of the standard library, torch and numpy that hold others,
    such as threads, files and locks; and so are classes, globals, and what lies outside of Python.
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
        own = attributes if type(attributes) is dict else {}
        values: list[Any] = list(own.values())
        if isinstance(one, torch.nn.Module):
            return ()
        if isinstance(one, Optimizer):
            values = [one.param_groups, one.defaults]
        elif not isinstance(one, LRScheduler):
            if _is_users(type(one)):
                values += self._keep_slots(one)
            elif not all(map(self._is_content, values)):
                return ()
        self._undo.append(partial(_set_attributes, own, dict(own)))
        return values

    def _keep_slots(self, one: Any) -> list[Any]:
        """Keep the attributes that `__slots__` declares; return their values."""
        values = []
        for cls in type(one).__mro__:
            for slot in vars(cls).values():
                if isinstance(slot, MemberDescriptorType):
                    value = _slot(one, slot)
                    self._undo.append(partial(_set_slot, one, slot, value))
                    values.append(value)
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


def _is_users(cls: type) -> bool:
    """Return whether a class derives from nothing that keeps a state outside of its attributes."""
    for base in cls.__mro__:
        library = base.__module__.partition(".")[0]
        if base is object or base.__module__ in _INTERFACES:
            continue
        if library in sys.stdlib_module_names or library in ("torch", "numpy"):
            return False
    return True


def _set_attributes(attributes: dict[str, Any], saved: dict[str, Any]) -> None:
    """Put attributes back one by one: another thread may read those that never changed."""
    for name in attributes.keys() - saved.keys():
        del attributes[name]
    for name, value in saved.items():
        if attributes.get(name, _EMPTY) is not value:
            attributes[name] = value


def _slot(one: Any, slot: MemberDescriptorType) -> Any:
    try:
        return slot.__get__(one)
    except AttributeError:
        return _EMPTY


def _set_slot(one: Any, slot: MemberDescriptorType, value: Any) -> None:
    if value is not _EMPTY:
        slot.__set__(one, value)
    elif _slot(one, slot) is not _EMPTY:
        slot.__delete__(one)
