"""Update each parameter in the backward pass, and free its gradient at once."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..arithmetic.gradient_scaling import GradientScaling

if TYPE_CHECKING:
    from ..optimizer import FusedDecaySGD


class InBackward:
    """Handle of the hooks that update parameters in the backward pass."""

    def __init__(self, optimizer: FusedDecaySGD) -> None:
        self._optimizer = optimizer
        self._places = {
            p: (g, i)
            for g, group in enumerate(optimizer.param_groups)
            for i, p in enumerate(group["params"])
        }
        self._hooks = [p.register_post_accumulate_grad_hook(self._update) for p in self._places]

    def remove(self) -> None:
        """Remove the hooks: `step()` updates again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _update(self, p: Tensor) -> None:
        _refuse_unreduced(p)
        optimizer, parts = self._optimizer, self._optimizer._internals
        groups = optimizer.param_groups
        parts.initial.forget(optimizer.state)
        own = self._group_of(p)
        if own is None:
            return  # it has left the optimizer
        alone = [{**group, "params": []} for group in groups]
        alone[own]["params"] = [p]
        state: dict[Tensor, dict[str, Any]] = defaultdict(dict)
        if p in optimizer.state:
            state[p] = optimizer.state[p]
        parts.rates.begin(groups)
        scaling = GradientScaling(master=parts.scaling.master)
        parts.backend.step(alone, state, parts.rates.program, False, scaling)
        optimizer.state.update(state)
        p.grad = None

    def _group_of(self, p: Tensor) -> int | None:
        """Return the index of the group that a parameter is in now."""
        groups = self._optimizer.param_groups
        g, i = self._places[p]
        if g < len(groups) and i < len(groups[g]["params"]) and groups[g]["params"][i] is p:
            return g
        for g, group in enumerate(groups):
            for i, q in enumerate(group["params"]):
                if q is p:
                    self._places[p] = g, i
                    return g
        return None


def update_in_backward(optimizer: FusedDecaySGD) -> InBackward:
    """Update every parameter during `backward()`, and free its gradient at once.

    `optimizer.step()` then finds no gradients: it is still called, once an iteration, and makes the
    schedule's step, which is one for all parameters. Every `backward()` is an update, so gradients
    are not accumulated over several, nor scaled by a GradScaler. Parameters may be sharded by
    FSDP2; where ranks hold plain ones, whose gradients DistributedDataParallel averages only
    later, `backward()` raises RuntimeError. Returns a handle with `remove()`. Raises ValueError for
    an optimizer with amp="fused" or max_grad_norm.
    """
    scaling = optimizer._internals.scaling
    for name, value in (("amp", scaling.amp), ("max_grad_norm", scaling.max_grad_norm)):
        if value is not None:
            raise ValueError(
                f"update_in_backward cannot take {name}={value!r}, which looks at all gradients "
                "before the first update"
            )
    return InBackward(optimizer)


def _refuse_unreduced(p: Tensor) -> None:
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return
    if distributed.get_world_size() > 1 and not hasattr(p, "placements"):
        raise RuntimeError(
            "update_in_backward: this gradient is not averaged over the ranks yet; shard the model "
            "by torch.distributed.fsdp.fully_shard, or call optimizer.step() without "
            "update_in_backward"
        )
