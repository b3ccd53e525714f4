"""The update as an operator of torch's, for functions that are compiled as one graph."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..arithmetic.gradient_scaling import GradientScaling
from ..rates.rates import Rates


@torch.library.custom_op("lrfused::sgd_", mutates_args=("params", "momentum_buffers"))
def sgd_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    momentum_buffers: Sequence[Tensor],
    lr: Tensor,
    *,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    first: bool = False,
) -> None:
    """Update parameters and momentum buffers in place, with the bits of `FusedDecaySGD`.

    Gradients and buffers are one for each parameter, of its shape, dtype and device; without
    momentum there are no buffers. lr is one number, best of fp64, in a tensor: so a compiled
    function takes another without being compiled anew. With `first` the buffers are only written.
    Called as `torch.ops.lrfused.sgd_`. Raises ValueError for lists of other lengths, RuntimeError
    for what cannot be a parameter's gradient, and what `FusedDecaySGD.step` raises.
    """
    wanted = len(params) if momentum != 0 else 0
    if len(grads) != len(params) or len(momentum_buffers) != wanted:
        raise ValueError(
            f"lrfused::sgd_ takes a gradient for each of {len(params)} parameters, and with "
            f"momentum={momentum} {wanted} momentum_buffers; got {len(grads)} and "
            f"{len(momentum_buffers)}"
        )
    if not params:
        return
    here = []
    state: Any = defaultdict(dict)
    for i, (p, grad) in enumerate(zip(params, grads, strict=True)):
        param = p.detach()
        param.grad = grad.detach()
        if momentum != 0 and not first:
            state[param]["momentum_buffer"] = momentum_buffers[i].detach()
        here.append(param)
    group = {
        "params": here,
        "lr": float(lr),
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
        "maximize": maximize,
        "schedule": None,
    }
    backend = backends.trusted("auto", list(dict.fromkeys(p.device for p in params)))
    rates = _rates_of(backend, group)
    backend.step([group], state, rates.program, False, GradientScaling())
    rates.program.forget()
    if momentum != 0 and first:
        for param, buffer in zip(here, momentum_buffers, strict=True):
            buffer.copy_(state[param]["momentum_buffer"])


_kept = threading.local()  # of each backend: its program has the rate of one call at a time


def _rates_of(backend: Any, group: dict[str, Any]) -> Rates:
    """Return rates with the group's, and no schedule."""
    rates: Rates | None = vars(_kept).get(backend.__name__)
    if rates is None:
        rates = vars(_kept)[backend.__name__] = Rates([group], backend.Program, capturable=False)
    rates.begin([group])
    return rates


@sgd_.register_fake
def _(*args: Any, **kwargs: Any) -> None:
    """Say that nothing is returned."""
