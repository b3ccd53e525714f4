"""Make a step by torch's for-loop on copies, and compare every bit with the step that was made.

For bf16 and fp16 on a CPU the oracle is lrfused's definition: torch's own result depends on where
an element falls in a SIMD block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.sgd import sgd

from ...arithmetic import bits
from ...arithmetic.gradient_scaling import GradientScaling
from ...arithmetic.sgd import unscaled, update
from .fused import Refused

_HALVES = (torch.bfloat16, torch.float16)
_SETTINGS = ("weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize")


@dataclass
class _Copy:
    """Hold what a step should leave of one parameter."""

    name: str
    param: Tensor
    buffer: Tensor | None


class Expected:
    """Hold what one step of an optimizer should leave; made before the step.

    Raises Refused if torch's for-loop does not make this step.
    """

    @torch.no_grad()
    def __init__(self, optimizer: SGD) -> None:
        self._copies: dict[Tensor, _Copy] = {}
        scaling = GradientScaling()
        scaling.read(optimizer)
        skips = scaling.skips()
        for g, group in enumerate(optimizer.param_groups):
            names = group.get("param_names", [""] * len(group["params"]))
            for i, (p, name) in enumerate(zip(group["params"], names, strict=True)):
                if p not in self._copies:  # a parameter may be listed twice
                    where = f"parameter {i} of group {g}, shape {tuple(p.shape)}"
                    self._copies[p] = _copy(p, where + f", {name}" * bool(name), optimizer.state)
                if p.grad is not None and not skips:
                    grad = unscaled(p.grad.detach().clone(), scaling.inv_scale())
                    _step(self._copies[p], grad, group)

    @torch.no_grad()
    def compare(self, optimizer: SGD) -> tuple[int, str]:
        """Count the values that differ after the step, and describe the first."""
        total, first = 0, ""
        for p, copy in self._copies.items():
            buffer = optimizer.state.get(p, {}).get("momentum_buffer")
            pairs = [("", p, copy.param)]
            if buffer is None and copy.buffer is None:
                pass
            elif buffer is None or copy.buffer is None:
                total += 1
                wanted = "none" if copy.buffer is None else "one"
                first = first or f"{copy.name}: momentum buffer, should be {wanted}"
            else:
                pairs.append((" momentum buffer", buffer, copy.buffer))
            for kind, got, want in pairs:
                count, how = _difference(_local(got), _local(want))
                total += count
                if count and not first:
                    first = f"{copy.name}:{kind}{how}"
        return total, first


def _copy(p: Tensor, name: str, state: Any) -> _Copy:
    buffer = state.get(p, {}).get("momentum_buffer")
    return _Copy(name, p.detach().clone(), None if buffer is None else buffer.clone())


def _step(copy: _Copy, grad: Tensor, group: dict[str, Any]) -> None:
    momentum = bool(group["momentum"])
    buffer = copy.buffer if momentum else None
    if copy.param.device.type == "cpu" and copy.param.dtype in _HALVES:
        buffer = update(copy.param, grad, buffer, group, float(group["lr"]))
    else:
        buffers = [buffer] * momentum
        try:
            sgd(
                [copy.param], [grad], buffers, has_sparse_grad=grad.is_sparse, foreach=False,
                fused=False, **{key: group[key] for key in _SETTINGS},
            )  # fmt: skip
        except RuntimeError as error:
            raise Refused(f"its for-loop fails: {str(error).splitlines()[0]}") from error
        buffer = buffers[0] if momentum else None
    if momentum:
        copy.buffer = buffer


def _difference(got: Tensor, want: Tensor) -> tuple[int, str]:
    """Count the stored numbers that differ, and describe the first; indices come first."""
    if got.layout != want.layout:
        return 1, f" is {got.layout}, should be {want.layout}"
    for mine, other in zip(_indices(got), _indices(want), strict=True):
        if not torch.equal(mine, other):
            return 1, " has other indices"
    return bits.difference(_numbers(got), _numbers(want))


def _local(tensor: Tensor) -> Tensor:
    """Return the part of this rank."""
    tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return tensor.detach()


def _indices(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return the indices of a sparse tensor's values; none for a dense one."""
    if tensor.layout == torch.strided:
        return ()
    if tensor.layout == torch.sparse_coo:
        return (tensor._indices(),)
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return (tensor.crow_indices(), tensor.col_indices())
    return (tensor.ccol_indices(), tensor.row_indices())


def _numbers(tensor: Tensor) -> Tensor:
    """Return the numbers that a tensor stores, two for a complex one."""
    if tensor.layout != torch.strided:
        coo = tensor.layout == torch.sparse_coo
        tensor = tensor._values() if coo else tensor.values().clone()  # torch has no view of a view
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
