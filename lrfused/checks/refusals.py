"""Refusals of arguments, parameters and state, the same for every backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from .numbers import number, plain

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_COMPLEX = (torch.complex64, torch.complex128, torch.complex32)
_NUMBERS = ("lr", "momentum", "dampening", "weight_decay")
_BESIDE = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum")  # of schedulers
_SETTINGS = {*_NUMBERS, *_BESIDE, "nesterov", "maximize"}
_LARGEST = torch.finfo(torch.float32).max
_ENDLESS = 2**61


def as_float(name: str, value: Any) -> float:
    """Return a number, or a tensor of one, as a float; raise TypeError naming it otherwise."""
    try:
        return float(number(name, value))
    except OverflowError as error:
        raise TypeError(f"{name} must fit into a double, got {value!r}") from error


def check_epoch(name: str, epoch: float) -> None:
    """Raise ValueError for an epoch that leaves a counter of 64 bits no room, and for NaN."""
    if not abs(epoch) < _ENDLESS:
        raise ValueError(f"{name} must be less than 2**61, got {epoch!r}")


def take_numbers(g: int, group: dict[str, Any]) -> None:
    """Make a group's settings plain numbers, but for a rate that is a tensor.

    Raises TypeError for one that is no number.
    """
    named = {key: f"param_groups[{g}][{key!r}]" for key in _NUMBERS if key in group}
    numbers = {key: number(name, group[key]) for key, name in named.items()}
    if isinstance(group.get("lr"), Tensor):
        numbers["lr"] = group["lr"]  # it stays the user's
    group.update({**plain_settings(group), **numbers})


def plain_settings(group: dict[str, Any]) -> dict[str, Any]:
    """Return a group's settings with plain numbers; what is no number stays as it is."""
    return {key: plain(value) if key in _SETTINGS else value for key, value in group.items()}


def check_rate(lr: Any) -> None:
    """Raise ValueError, with torch's message, for a tensor of several rates."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")


def check_arguments(
    lr: Any, momentum: Any, dampening: Any, weight_decay: Any, nesterov: bool, differentiable: bool
) -> None:
    """Raise ValueError for arguments that no SGD can have, with torch's message if it has one."""
    if lr < 0.0:
        raise ValueError(f"Invalid learning rate: {lr}")
    if momentum < 0.0:
        raise ValueError(f"Invalid momentum value: {momentum}")
    if weight_decay < 0.0:
        raise ValueError(f"Invalid weight_decay value: {weight_decay}")
    if nesterov and (momentum <= 0 or dampening != 0):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")
    if differentiable:
        raise ValueError("differentiable=True is not supported; use torch.optim.SGD")


def check_ticks(schedule_every: Any, amp: Any, advance: Any) -> None:
    """Raise ValueError unless the arguments that decide when a schedule advances are valid."""
    if schedule_every is not None and (
        isinstance(schedule_every, bool)
        or not isinstance(schedule_every, int)
        or schedule_every < 1
    ):
        raise ValueError(
            f"schedule_every must be an integer of at least 1, or None, got {schedule_every!r}"
        )
    if amp not in (None, "fused"):
        raise ValueError(f"amp must be None or 'fused', got {amp!r}")
    if advance not in ("always", "on_update"):
        raise ValueError(f"advance must be 'always' or 'on_update', got {advance!r}")
    if advance == "on_update" and schedule_every is None:
        raise ValueError(
            "advance='on_update' is about schedule steps made by optimizer.step(), and with "
            "schedule_every=None there are none: the loop decides when to call scheduler.step()"
        )


def check_numbers(groups: list[dict[str, Any]]) -> None:
    """Raise TypeError unless every group's hyper-parameters are numbers."""
    for g, group in enumerate(groups):
        for key in _NUMBERS:
            as_float(f"param_groups[{g}][{key!r}]", group[key])


def check_range(g: int, group: dict[str, Any], lr: float, param: Tensor) -> None:
    """Raise ValueError unless the numbers are in the range of the parameter's opmath."""
    if param.dtype == torch.float64:
        return
    for key in _NUMBERS:
        if key == "momentum" and not group["nesterov"]:
            continue  # it only multiplies, and may become infinite
        value = lr if key == "lr" else float(group[key])
        if math.isfinite(value) and abs(value) > _LARGEST:
            raise ValueError(
                f"param_groups[{g}][{key!r}] = {value} cannot be converted to float32 without "
                f"overflow, for a parameter of {param.dtype}"
            )


def check_parameter(g: int, param: Tensor, mastered: bool = False) -> None:
    """Raise TypeError unless this parameter, which has a gradient, can be updated."""
    grad = param.grad
    assert grad is not None
    if param.dtype not in DTYPES and param.dtype not in _COMPLEX:
        names = ", ".join(str(d) for d in (*DTYPES, *_COMPLEX))
        _refuse(g, param, f"is {param.dtype}, not one of {names}")
    if param.is_inference() and not torch.is_inference_mode_enabled():
        _refuse(g, param, "was made in inference mode; clone it outside")
    if param.layout == torch.strided and torch._debug_has_internal_overlap(param) == 1:
        _refuse(g, param, "has several elements in a single memory location; clone it")
    single = mastered and grad.dtype == torch.float32
    _check_beside(g, param, "gradient", grad, torch.float32 if single else param.dtype)


def check_unusual(g: int, param: Tensor, scaled: bool, clipped: bool) -> None:
    """Raise RuntimeError where torch neither unscales nor clips a gradient of this kind."""
    grad = param.grad
    assert grad is not None
    if scaled and (grad.is_complex() or grad.layout not in (torch.strided, torch.sparse_coo)):
        what = f"has a {_layout(grad)} gradient of {grad.dtype}, which GradScaler does not unscale"
        _refuse(g, param, f"{what}; step it by another optimizer", RuntimeError)
    if clipped and grad.layout != torch.strided:
        what = f"has a {_layout(grad)} gradient, which has no norm, as in clip_grad_norm_"
        _refuse(g, param, f"{what}; leave max_grad_norm out", RuntimeError)


def refuse_as_torch(
    g: int, param: Tensor, buffer: Any, group: dict[str, Any], error: Exception
) -> NoReturn:
    """Raise the error that torch.optim.SGD raises in this update, in words that name the cause."""
    grad = param.grad
    assert grad is not None
    beside = "" if buffer is None else f" and a {_layout(buffer)} momentum_buffer"
    why = str(error).splitlines()[0].removesuffix(".")
    advice = ""
    if grad.layout != torch.strided and group["weight_decay"] != 0:
        advice = "; weight_decay needs a dense gradient: put the parameter into a group without"
    _refuse(
        g, param, f"is {param.dtype} with a {_layout(grad)} gradient{beside}, which "
        f"torch.optim.SGD does not update either: {why}{advice}",
        RuntimeError,
    )  # fmt: skip


def _layout(tensor: Tensor) -> str:
    return "dense" if tensor.layout == torch.strided else str(tensor.layout)


def check_entry(param: Tensor, state: dict[Tensor, dict[str, Any]]) -> None:
    """Raise KeyError, as torch does, if a state has no entry for a parameter and makes none."""
    if param not in state and not hasattr(type(state), "__missing__"):
        raise KeyError(param)


def check_buffer(g: int, param: Tensor, buffer: Any, mastered: bool = False) -> None:
    """Raise TypeError unless `buffer` can be the parameter's momentum_buffer."""
    if buffer is not None:
        dtype = torch.float32 if mastered else param.dtype
        _check_beside(g, param, "momentum_buffer", buffer, dtype)


def check_master(g: int, param: Tensor, key: str, master: Any) -> None:
    """Raise TypeError unless `master` can be the parameter's state under this key."""
    if key == "master_remainder" and param.dtype != torch.bfloat16:
        _refuse(g, param, f"is {param.dtype}: master_weights='remainder' is for bfloat16; use True")
    if master is not None:
        dtype = torch.float32 if key == "master" else torch.int16
        _check_beside(g, param, key, master, dtype)


def check_whole(g: int, param: Tensor) -> None:
    """Raise TypeError where no norm can be read: of a DTensor's part, and of a tensor without data.

    A FakeTensor has no data.
    """
    if hasattr(param, "fake_mode"):
        _refuse(g, param, "is a FakeTensor, which has no norm; leave max_grad_norm out")
    if hasattr(param, "to_local"):
        _refuse(
            g, param, "is a DTensor, and max_grad_norm knows nothing of other ranks; "
            "use torch.nn.utils.clip_grad_norm_",
        )  # fmt: skip


def check_joinable(g: int, param: Tensor) -> None:
    """Raise TypeError for a DTensor, as its bits cannot be read as integers."""
    if hasattr(param, "to_local"):
        _refuse(g, param, "is a DTensor, which has no remainder; use master_weights=True")


def check_max_grad_norm(value: Any) -> float | None:
    """Return a number of at least 0 as a float, or None; raise TypeError or ValueError else."""
    if value is None:
        return None
    bound = as_float("max_grad_norm", value)
    if not bound >= 0:
        raise ValueError(f"max_grad_norm must be at least 0, or None, got {value!r}")
    return bound


def check_cycles(saved: list[dict[str, Any]], own: list[dict[str, Any]]) -> None:
    """Raise ValueError if the settings that OneCycleLR keeps in the groups differ."""
    for i, (there, here) in enumerate(zip(saved, own, strict=True)):
        for key in ("max_lr", "min_lr", "max_momentum", "base_momentum"):
            if key in there and key in here and there[key] != here[key]:
                raise ValueError(
                    f"the checkpoint's param_groups[{i}] has {key}={there[key]!r}, this "
                    f"optimizer's {here[key]!r}; override=True takes the checkpoint's"
                )


def _check_beside(g: int, param: Tensor, name: str, other: Any, dtype: torch.dtype) -> None:
    if not isinstance(other, Tensor):
        _refuse(g, param, f"has a {name} that is {type(other).__name__}, not a tensor")
    wanted = {"dtype": dtype, "shape": param.shape, "device": param.device}
    for trait, here in wanted.items():
        there = getattr(other, trait)
        if here != there:
            _refuse(g, param, f"has a {name} of another {trait}: {there}, not {here}")


def _refuse(
    g: int, param: Tensor, what: str, kind: Callable[[str], Exception] = TypeError
) -> NoReturn:
    raise kind(f"FusedDecaySGD: a parameter of shape {tuple(param.shape)} in group {g} {what}")
