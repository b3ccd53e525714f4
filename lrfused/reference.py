"""The definition of lrfused, in pure PyTorch: torch's for-loop and torch's own schedulers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .chain import as_schedules
from .metrics import as_metric

_EXPLICIT = (torch.bfloat16, torch.float16)


def update(
    param: Tensor,
    grad: Tensor,
    buffer: Tensor | None,
    group: dict[str, Any],
    lr: float,
    inv_scale: float = 1.0,
) -> Tensor | None:
    """Update one parameter in place, and its momentum buffer; return the buffer, made if None.

    The for-loop path of torch.optim.SGD. torch's 16-bit results on a CPU depend on where in a SIMD
    block an element falls, so there the same formula is spelt out: every operation is done in fp32
    and rounded once to the tensor's dtype. `inv_scale` multiplies the gradient first.
    """
    momentum, weight_decay = float(group["momentum"]), float(group["weight_decay"])
    explicit = param.device.type == "cpu" and param.dtype in _EXPLICIT
    add, add_, mul, mul_ = _IN_FP32 if explicit else _AS_TORCH
    d = grad if inv_scale == 1.0 else mul(grad, inv_scale)
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


class ReferenceDecaySGD(torch.optim.SGD):
    """Do what FusedDecaySGD does with torch's own SGD and schedulers: the oracle.

    The arguments are FusedDecaySGD's; `backend`, `capturable`, `foreach` and `fused` are accepted
    and ignored.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        schedule: Any = None,
        schedule_every: int | None = 1,
        backend: str = "auto",
        capturable: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None:
        if differentiable:
            raise ValueError("differentiable=True is not supported; use torch.optim.SGD")
        super().__init__(
            params, lr, momentum, dampening, weight_decay, nesterov, maximize=maximize,
            foreach=False, fused=False,
        )  # fmt: skip
        self.schedule_every = schedule_every
        self._since = 0
        self._attach(as_schedules(schedule))

    def _attach(self, default: Any) -> None:
        self._chains: list[tuple[torch.optim.SGD, list[Any]]] = []
        shared: dict[int, tuple[Any, list[dict[str, Any]]]] = {}
        for group in self.param_groups:
            group["lr"] = float(group["lr"])
            own = group.pop("schedule", default)
            chain = default if own is default else as_schedules(own)
            if chain is not None:
                shared.setdefault(id(own), (chain, []))[1].append(group)
        for chain, groups in shared.values():
            # torch's schedulers take an optimizer; this one shares the groups' dicts with ours.
            holder = torch.optim.SGD([torch.empty(0)])
            holder.param_groups[:] = groups
            vars(holder)["_opt_called"] = True  # no warning of a step before the optimizer's
            self._chains.append((holder, [s.bind(holder) for s in chain]))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Perform a single optimization step, and the schedule's."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].get("momentum_buffer") if group["momentum"] != 0 else None
                buffer = update(p, p.grad, buffer, group, group["lr"])
                if group["momentum"] != 0:
                    self.state[p]["momentum_buffer"] = buffer
        if self.schedule_every is not None:
            self._since += 1
            if self._since == self.schedule_every:
                self._since = 0
                self.scheduler.step()
        return loss

    @property
    def scheduler(self) -> ReferenceScheduler:
        """Return the handle of the schedule."""
        return ReferenceScheduler(self)


class ReferenceScheduler:
    """Step torch's schedulers as lrfused's handle steps a FusedDecaySGD's schedule."""

    def __init__(self, optimizer: ReferenceDecaySGD) -> None:
        self.optimizer = optimizer

    def step(self, metrics: Any = None) -> None:
        """Step every scheduler that takes no metric; or, given metrics, every one that does."""
        for _, members in self.optimizer._chains:
            for member in members:
                if isinstance(member, torch.optim.lr_scheduler.ReduceLROnPlateau):
                    if metrics is not None:
                        member.step(as_metric(metrics))
                elif metrics is None:
                    member.step()

    def get_last_lr(self) -> list[float]:
        """Return the rates that the next step will use."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]
