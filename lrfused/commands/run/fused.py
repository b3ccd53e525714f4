"""Make the steps of a torch.optim.SGD by a FusedDecaySGD, on the same tensors and state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD

from ... import FusedDecaySGD
from ...internals import first_device

# torch's step reads parameters, gradients and state with it.
_torchs_init_group = getattr(SGD._init_group, "_torchdynamo_orig_callable", SGD._init_group)
_PREFIX = "FusedDecaySGD: "  # of the refusals of a step, all raised before anything is written
_SETTINGS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")


class Refused(Exception):
    """Carry the reason why a step was not made; nothing was changed."""


class FusedSteps:
    """Hold the FusedDecaySGD that makes an optimizer's steps.

    The optimizer stays a torch.optim.SGD: its groups and its state are the only ones, so torch can
    take over after any step. The FusedDecaySGD has copies of the groups' dicts, since it writes
    plain numbers into them where a script may have put a tensor.
    """

    def __init__(self, optimizer: SGD) -> None:
        if _has_own_init_group(optimizer):
            raise Refused("an _init_group of its own")
        for group in optimizer.param_groups:
            _refuse(group)
        try:
            self._fused = FusedDecaySGD(
                [
                    {"params": list(group["params"]), **{key: group[key] for key in _SETTINGS}}
                    for group in optimizer.param_groups
                ]
            )
        except (TypeError, ValueError) as error:
            raise Refused(_reason(error)) from error

    @property
    def backend(self) -> str:
        """Return the backend's name."""
        return self._fused.backend

    def fits(self, optimizer: SGD) -> bool:
        """Return whether groups, device and torch's `_init_group` are those of the last step."""
        groups = optimizer.param_groups
        same = len(self._fused.param_groups) == len(groups) and not _has_own_init_group(optimizer)
        return same and first_device(groups) == self._fused._internals.device

    def step(self, optimizer: SGD) -> None:
        """Make one step; raise Refused if it cannot be made, and change nothing then."""
        parts, groups = self._fused._internals, self._fused.param_groups
        for own, group in zip(groups, optimizer.param_groups, strict=True):
            own.update(group)
        if parts.rates.program.recording:
            raise Refused("captured in a CUDA graph")
        try:
            parts.rates.begin(groups, due=False)
            parts.scaling.read(optimizer)
            program = parts.rates.program
            parts.backend.step(groups, optimizer.state, program, False, parts.scaling)
        except (TypeError, ValueError, RuntimeError) as error:
            # Other RuntimeErrors may come from the middle of a step.
            if isinstance(error, RuntimeError) and not str(error).startswith(_PREFIX):
                raise
            raise Refused(_reason(error)) from error


def _has_own_init_group(optimizer: SGD) -> bool:
    """Return whether a class or the optimizer itself has replaced `_init_group`."""
    own = optimizer._init_group
    # torch.compile puts a wrapper around torch's.
    function = getattr(own, "_torchdynamo_orig_callable", getattr(own, "__func__", None))
    return function is not _torchs_init_group


def _reason(error: Exception) -> str:
    """Return a refusal's message, short enough for a table."""
    return str(error).removeprefix(_PREFIX).partition(";")[0]


def _refuse(group: dict[str, Any]) -> None:
    if group["differentiable"]:
        raise Refused("differentiable=True")
    for key in ("lr", "weight_decay"):
        if isinstance(group[key], Tensor) and group[key].requires_grad:
            raise Refused(f"{key} requires a gradient")
    if any(not isinstance(p, torch.Tensor) for p in group["params"]):
        raise Refused("a parameter is no tensor")
