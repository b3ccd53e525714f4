"""Put lrfused into torch.optim.SGD itself, so that every name and subclass of it has the same step.

The class stays the same object: `isinstance`, `type`, look-ups by name, pickles and checkpoints are
torch's own.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.compiler import is_dynamo_compiling
from torch.optim import SGD, Optimizer

from ... import FusedDecaySGD
from ...integrations.zero_grad import zero_grad
from ...reference import ReferenceDecaySGD
from .followed import Registry
from .settings import Settings

_OURS = (FusedDecaySGD, ReferenceDecaySGD)
_MARK = "steps_of_lrfused_run"  # torch's wrapper of a step copies the function's attributes


def patch(registry: Registry, settings: Settings) -> None:
    """Change SGD's `step` and `zero_grad`, and note optimizers that have a step of their own."""
    SGD.step = _step(SGD.step, registry, settings)  # type: ignore[method-assign]
    SGD.zero_grad = _zero_grad(registry)  # type: ignore[method-assign]
    patch_steps: Any = Optimizer._patch_step_function

    @functools.wraps(patch_steps)
    def _patch_step_function(self: Any) -> None:
        patch_steps(self)
        own = isinstance(self, SGD) and not hasattr(type(self).step, _MARK)
        constructed = "param_groups" not in self.__dict__  # neither copied nor unpickled
        if own and constructed and not isinstance(self, _OURS):
            registry.note_own_step(self)

    Optimizer._patch_step_function = _patch_step_function  # type: ignore[method-assign]


def _step(torchs: Callable[..., Any], registry: Registry, settings: Settings) -> Any:
    @functools.wraps(torchs)
    def step(self: Any, closure: Any = None) -> Any:
        if is_dynamo_compiling():  # elsewhere `disable` would only cost time
            return untraced(self, closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        registry.at_step(self).step(self, torchs, settings)
        return loss

    # torch's own step breaks the graph, too.
    untraced = torch.compiler.disable(step, reason="the step is one kernel already")
    setattr(step, _MARK, True)
    return step


def _zero_grad(registry: Registry) -> Any:
    @functools.wraps(Optimizer.zero_grad)
    def timed(self: Any, *args: Any, **kwargs: Any) -> None:
        if is_dynamo_compiling():
            return super(SGD, self).zero_grad(*args, **kwargs)
        began = time.perf_counter()
        zero_grad(self, *args, **kwargs)
        registry.add_zero_grad(self, time.perf_counter() - began)

    return timed
