"""A torch scheduler's state as plain data: saved, checked against another, and loaded."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CyclicLR,
    OneCycleLR,
    ReduceLROnPlateau,
)

from ..schedules.attributes import is_plain
from ..schedules.attributes import plain_state as plain_numbers
from ..schedules.lr_lambda import LRLambda
from ..schedules.versions import translate_state

# Entries that a step changes, or that are loaded without a comparison; the others are settings.
_MOVES = {
    "last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial", "T_cur",
    "T_i", "base_lrs", "lr_lambdas", "_scale_fn_custom", "_schedulers", "verbose", "name",
}  # fmt: skip


def plain_state(scheduler: Any) -> dict[str, Any]:
    """Return a scheduler's state, with its class's name, as numbers, strings, lists and tensors.

    torch.distributed.checkpoint turns a dict's integer keys into strings and drops empty lists: so
    no dict has integer keys, and a missing list is read as an empty one.
    """
    state = {k: _plain(v) for k, v in torch_state(scheduler).items()}
    if "lr_lambdas" in state:
        state["lr_lambdas"] = [_plain_entries(own) or None for own in state["lr_lambdas"]]
    if "_scale_fn_custom" in state:
        state["_scale_fn_custom"] = _plain_entries(state["_scale_fn_custom"])
    if "_schedulers" in state:
        state["_schedulers"] = [plain_state(member) for member in scheduler._schedulers]
    return {**state, "name": type(scheduler).__name__}


def torch_state(scheduler: Any) -> dict[str, Any]:
    """Return what a scheduler's `state_dict()` returns; a built-in function is no part of it.

    torch's own fails with one, which has no `__dict__`.
    """
    saved = copy.copy(scheduler)
    if hasattr(saved, "lr_lambdas"):
        saved.lr_lambdas = [_saveable(function) for function in saved.lr_lambdas]
    if getattr(saved, "_scale_fn_custom", None) is not None:
        saved._scale_fn_custom = _saveable(saved._scale_fn_custom)
    state: dict[str, Any] = saved.state_dict()
    return state


def _saveable(function: Any) -> Any:
    return function if hasattr(function, "__dict__") else _saved_by_no_state


def _saved_by_no_state(epoch: int) -> float:
    raise AssertionError("a function that only stands for another in a state")


def _plain(value: Any) -> Any:
    if isinstance(value, Counter):
        return sorted(value.elements())
    return list(value) if isinstance(value, (tuple, list)) else value


def _plain_entries(attributes: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the attributes of a user's callable, without those that are no plain data."""
    return attributes and {k: v for k, v in attributes.items() if is_plain(v)}


def check(scheduler: Any, state: dict[str, Any], override: bool) -> None:
    """Raise ValueError unless `state` can be loaded; with `override`, settings may differ."""
    name = type(scheduler).__name__
    own = plain_state(scheduler)
    if not isinstance(state, dict):
        raise ValueError(f"the checkpoint's {name} is {type(state).__name__}, not a dict")
    state = translate_state(plain_numbers(state), own)
    numbers = [] if isinstance(scheduler, ChainedScheduler) else ["last_epoch"]
    if isinstance(scheduler, ReduceLROnPlateau):
        numbers += ["best", "num_bad_epochs", "cooldown_counter"]
    for key in numbers:
        if not isinstance(state.get(key), (int, float)):
            raise ValueError(f"the checkpoint's {name} has no number {key!r}")
    if state.get("name", name) != name:
        raise ValueError(f"the checkpoint's schedule is {state['name']}, this optimizer's {name}")
    for key in ("base_lrs", "min_lrs", "lr_lambdas", "_schedulers"):
        saved = state.get(key)
        if key in own and (not isinstance(saved, (list, tuple)) or len(saved) != len(own[key])):
            raise ValueError(
                f"the checkpoint's {name} has {key}={state.get(key)!r}, this optimizer's has "
                f"{len(own[key])} of them"
            )
    _check_kinds(name, own, state)
    if "_scale_fn_custom" in own:
        if "_scale_fn_custom" not in state:
            raise ValueError(f"the checkpoint's {name} has no '_scale_fn_custom'")
        if state["_scale_fn_custom"] is not None and scheduler._scale_fn_custom is None:
            raise ValueError(f"the checkpoint's {name} has a scale_fn, this optimizer's none")
    if "_schedulers" in own:
        for member, inner in zip(scheduler._schedulers, state["_schedulers"], strict=True):
            check(member, inner, override)
    if override or isinstance(scheduler, ReduceLROnPlateau):
        return  # a plateau's settings are loaded, as torch does
    compared = set(own) - _MOVES
    if isinstance(scheduler, (CyclicLR, OneCycleLR)):
        compared.add("base_lrs")  # made of the arguments
    functions = zip(own.get("lr_lambdas", ()), state.get("lr_lambdas", ()), strict=False)
    for function, saved in functions:
        if saved is not None and saved != function and _is_formula(scheduler):
            raise ValueError(
                f"the checkpoint's {name} has {saved!r}, this optimizer's {function!r}; "
                "override=True takes the checkpoint's"
            )
    # A recorded scheduler's total_steps explains more than its tapes, so tensors come last.
    for key in sorted(compared, key=lambda k: (isinstance(own[k], Tensor), k.startswith("_"), k)):
        here = own[key]
        there = _plain(state.get(key, [] if here == [] else None))
        if not _same(here, there):
            raise ValueError(
                f"the checkpoint's {name} has {key}={_shown(there)}, this optimizer's "
                f"{_shown(here)}; override=True takes the checkpoint's"
            )


_CYCLED = ("base_momentums", "max_momentums", "use_beta1")  # an override may add them
_COUNTED = ("last_epoch", "_step_count")  # in 64 bits
_ENDLESS = 2**62  # more steps than a counter holds
_FUNCTIONS = ("lr_lambdas", "_scale_fn_custom", "_schedulers")  # checked apart


def _check_kinds(name: str, own: dict[str, Any], state: Any) -> None:
    """Raise ValueError unless every entry has the type that this scheduler works with."""
    functions = [state.get("_scale_fn_custom"), *state.get("lr_lambdas", ())]
    if not all(saved is None or isinstance(saved, dict) for saved in functions):
        raise ValueError(f"the checkpoint's {name} has functions that are no dicts: {functions}")
    for key, here in {"base_momentums": [], "max_momentums": [], "use_beta1": False, **own}.items():
        there = _plain(state.get(key, here))
        endless = key in _COUNTED and _is_number(there) and not abs(there) < _ENDLESS
        if endless or (key not in _FUNCTIONS and not is_of_the_kind(here, there)):
            raise ValueError(
                f"the checkpoint's {name} has {key}={there!r}, of another kind than {here!r}"
            )


def refuse_another_kind(name: str, before: Any, value: Any) -> None:
    """Raise TypeError or ValueError unless a value may take another's place on a scheduler."""
    if not is_of_the_kind(before, value):
        raise TypeError(f"scheduler.{name} must be of the kind of {before!r}, got {value!r}")
    if isinstance(before, list) and len(value) != len(before):
        raise ValueError(f"scheduler.{name} must have {len(before)} entries, got {value!r}")
    if name in _AT_LEAST_ONE and not value >= 1:
        raise ValueError(f"scheduler.{name} must be at least 1, got {value!r}")
    if before in _WORDS.get(name, ()) and value not in _WORDS[name]:
        raise ValueError(f"scheduler.{name} must be one of {_WORDS[name]}, got {value!r}")


_AT_LEAST_ONE = ("step_size", "T_max", "T_0", "T_i", "T_mult", "total_steps")
_WORDS = {"mode": ("min", "max"), "threshold_mode": ("rel", "abs")}  # of ReduceLROnPlateau


def is_of_the_kind(here: Any, there: Any) -> bool:
    """Return whether a scheduler that works with one value works with the other."""
    if callable(here):
        return callable(there)
    if isinstance(here, Tensor):
        return isinstance(there, Tensor) and here.dim() == there.dim()
    if isinstance(here, (int, float)):
        return _is_number(there)  # torch counts with what it was given: 3.0 may come where 3 was
    if isinstance(here, dict) and isinstance(there, dict):
        if all(isinstance(key, int) for key in here):  # milestones
            return all(isinstance(number, int) for pair in there.items() for number in pair)
        return here.keys() == there.keys() and all(is_of_the_kind(here[k], there[k]) for k in here)
    if isinstance(here, list) and isinstance(there, list):
        if any(map(callable, here)):
            return len(here) == len(there) and all(map(callable, there))
        if any(isinstance(one, dict) for one in here):
            return len(here) == len(there) and all(map(is_of_the_kind, here, there))
        return all(map(_is_number, there))
    return here is None or type(here) is type(there)


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, (int, float))


def _is_formula(scheduler: Any) -> bool:
    return all(isinstance(function, LRLambda) for function in scheduler.lr_lambdas)


def _shown(value: Any) -> str:
    if not isinstance(value, Tensor) or value.numel() <= 4:
        return repr(value)
    first = ", ".join(f"{x:.6g}" for x in value.flatten()[:3].tolist())
    return f"[{first}, ...] of shape {tuple(value.shape)}"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) or bool(a != a and b != b)  # NaN


def load(scheduler: Any, state: dict[str, Any]) -> None:
    """Load a state that `check` accepted."""
    # An entry of another name could replace one of the scheduler's methods.
    own = plain_state(scheduler)
    state = translate_state(plain_numbers(state), own)
    state = {k: v for k, v in state.items() if k in {*own, *_CYCLED} and k != "name"}
    if "milestones" in state:
        state["milestones"] = Counter(state["milestones"])
    members = state.pop("_schedulers", None)
    if members is None:
        scheduler.load_state_dict(state)
        return
    vars(scheduler).update(state)
    for member, inner in zip(scheduler._schedulers, members, strict=True):
        load(member, inner)
