"""`torch.ops.lrfused.sgd_`: the update as an operator, for torch.compile without graph breaks."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..arithmetic.gradient_scaling import GradientScaling
from ..arithmetic.sparse import is_sparse
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

    grads, momentum_buffers: one for each parameter, of its shape, dtype and device; no buffers
    without momentum. lr: one number in a tensor, best of fp64: with a tensor another rate needs no
    new compilation. first: the buffers are only written. Raises ValueError for lists of other
    lengths, RuntimeError for a tensor that cannot be a parameter's gradient, and the errors of
    `FusedDecaySGD.step`; TypeError for a sparse gradient, whose momentum buffer would be sparse.
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
    for grad in grads:
        if is_sparse(grad):
            raise TypeError(f"lrfused::sgd_ takes dense gradients, got a {grad.layout} one")
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
    if momentum != 0 and first:
        for param, buffer in zip(here, momentum_buffers, strict=True):
            buffer.copy_(state[param]["momentum_buffer"])


_kept = threading.local()  # rates by backend; a program has the rate of one call at a time


def _rates_of(backend: Any, group: dict[str, Any]) -> Rates:
    """Return rates without a schedule, with the group's rate."""
    rates: Rates | None = vars(_kept).get(backend.name)
    if rates is None:
        rates = vars(_kept)[backend.name] = Rates([{**group}], backend.Program, capturable=False)
    known = rates.shown.groups
    known[0].update(group)
    rates.begin(known)
    known[0]["params"] = []
    return rates


@sgd_.register_fake
def _(*args: Any, **kwargs: Any) -> None:
    """Return nothing, as the operator does."""
