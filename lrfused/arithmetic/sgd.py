"""The update of one parameter in pure PyTorch: the definition. csrc/sgd.h has it in C++."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .masters import has_master, read, write
from .norm import square_sum
from .sparse import is_sparse, map_values

_EXPLICIT = (torch.bfloat16, torch.float16)


def update(
    param: Tensor,
    grad: Tensor,
    buffer: Tensor | None,
    group: dict[str, Any],
    lr: float,
    inv_scale: float = 1.0,
    clip: float = 1.0,
) -> Tensor | None:
    """Update one parameter in place, and its momentum buffer; return the buffer, made if None.

    This is the for-loop path of torch.optim.SGD. torch's bf16 and fp16 results on a CPU depend on
    where in a SIMD block an element falls, so there each operation is done explicitly in fp32 and
    rounded once to the tensor's dtype. Where a tensor is sparse the operations are torch's, which
    are the same for every element. The gradient is multiplied by `inv_scale` first, then by `clip`.
    """
    momentum, weight_decay = float(group["momentum"]), float(group["weight_decay"])
    add, add_, mul, mul_ = _operations(param, grad, buffer)
    d = unscaled(grad, inv_scale)
    if clip != 1.0:
        d = mul(d, clip)
    if group["maximize"]:
        d = -d
    if weight_decay != 0:
        d = add(d, param, weight_decay)
    if momentum != 0:
        if buffer is None:
            buffer = d.detach().clone()
        else:
            add_(mul_(buffer, momentum), d, 1 - float(group["dampening"]))
        d = add(d, buffer, momentum) if group["nesterov"] else buffer
    add_(param, d, -lr)
    return buffer


def unscaled(grad: Tensor, inv_scale: float) -> Tensor:
    """Return the gradient multiplied by `inv_scale`."""
    if inv_scale == 1.0:
        return grad
    return map_values(lambda values: _operations(values)[2](values, inv_scale), grad)


def gradient_square_sum(param: Tensor, inv_scale: float, master: str | None) -> float:
    """Return the sum of the squares of a parameter's unscaled gradient; 0 if it has none."""
    if param.grad is None:
        return 0.0
    grad = param.grad.float() if has_master(param, master) else param.grad
    grad = unscaled(grad, inv_scale)
    if grad.is_complex():
        grad = torch.view_as_real(grad.resolve_conj())
    return float(square_sum(grad))


def update_own(
    param: Tensor,
    own: dict[str, Any],
    group: dict[str, Any],
    lr: float,
    inv_scale: float = 1.0,
    clip: float = 1.0,
    master: str | None = None,
) -> None:
    """Update one parameter that has a gradient, and its state.

    If it has a master, the master is updated, as an fp32 parameter with the gradient widened, and
    then rounded into the parameter. `master` is its key in the state: `masters.key_of`.
    """
    grad = param.grad
    assert grad is not None
    momentum = group["momentum"] != 0
    buffer = own.get("momentum_buffer") if momentum else None
    wide = read(param, own, master) if master and has_master(param, master) else param
    buffer = update(wide, grad.to(wide.dtype), buffer, group, lr, inv_scale, clip)
    if momentum:
        own["momentum_buffer"] = buffer
    if master and wide is not param:
        write(param, own, master, wide)


def _operations(tensor: Tensor, *others: Tensor | None) -> Any:
    explicit = tensor.device.type == "cpu" and tensor.dtype in _EXPLICIT
    return _IN_FP32 if explicit and not is_sparse(tensor, *others) else _AS_TORCH


_AS_TORCH = (
    lambda a, b, alpha: a.add(b, alpha=alpha),
    lambda a, b, alpha: a.add_(b, alpha=alpha),
    torch.mul,
    torch.Tensor.mul_,
)
_IN_FP32 = (
    lambda a, b, alpha: a.float().add_(b.float(), alpha=alpha).to(a.dtype),
    lambda a, b, alpha: a.copy_(a.float().add_(b.float(), alpha=alpha)),
    lambda a, alpha: a.float().mul_(alpha).to(a.dtype),
    lambda a, alpha: a.copy_(a.float().mul_(alpha)),
)
