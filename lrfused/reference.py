"""ReferenceDecaySGD: what FusedDecaySGD must equal, made of torch's own SGD and schedulers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .arithmetic.gradient_scaling import GradientScaling
from .arithmetic.masters import key_of
from .arithmetic.norm import norm
from .arithmetic.sgd import gradient_square_sum, update_own
from .outside_modes import zeros
from .rates.metric import as_metric
from .schedules.base import as_schedules


class ReferenceDecaySGD(torch.optim.SGD):
    """Oracle of FusedDecaySGD: torch's SGD and schedulers, with the same arguments.

    `backend`, `capturable`, `foreach` and `fused` have no effect.
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
        amp: str | None = None,
        advance: str = "always",
        max_grad_norm: float | None = None,
        master_weights: bool | str = False,
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
        on_update = advance == "on_update"
        self._scaling = GradientScaling(amp, on_update, max_grad_norm, key_of(master_weights))
        self._step_supports_amp_scaling = amp == "fused"
        self._attach(as_schedules(schedule))

    def _attach(self, default: Any) -> None:
        self.attached: list[tuple[torch.optim.SGD, list[Any]]] = []
        shared: dict[int, tuple[Any, list[dict[str, Any]]]] = {}
        for group in self.param_groups:
            group["lr"] = float(group["lr"])
            own = group.pop("schedule", default)
            chain = default if own is default else as_schedules(own)
            if chain is not None:
                shared.setdefault(id(own), (chain, []))[1].append(group)
        for chain, groups in shared.values():
            # torch's schedulers take an optimizer; this one shares the groups' dicts with ours.
            holder = torch.optim.SGD([zeros(0)])
            holder.param_groups[:] = groups
            vars(holder)["_opt_called"] = True  # no warning of a step before the optimizer's
            self.attached.append((holder, [s.bind(holder) for s in chain]))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Perform a single optimization step, and the schedule's."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        updated = self._update()
        if not updated and self._scaling.on_update:
            return loss
        if self.schedule_every is not None:
            self._since += 1
            if self._since == self.schedule_every:
                self._since = 0
                self.scheduler.step()
        return loss

    def _update(self) -> bool:
        scaling = self._scaling
        scaling.read(self)
        if scaling.skips():
            return False
        inv_scale, clip = scaling.inv_scale(), 1.0
        pairs = [(group, p) for group in self.param_groups for p in group["params"]]
        if scaling.max_grad_norm is not None:
            sums = [gradient_square_sum(p, inv_scale, scaling.master) for _, p in pairs]
            coefficient = scaling.clip(norm(sums))
            if coefficient is None:
                return False
            clip = coefficient
        for group, p in pairs:
            if p.grad is not None:
                own = self.state.get(p, {})
                update_own(p, own, group, group["lr"], inv_scale, clip, scaling.master)
                if own:
                    self.state[p] = own
        return True

    @property
    def scheduler(self) -> ReferenceScheduler:
        """Return the handle of the schedule."""
        return ReferenceScheduler(self)


class ReferenceScheduler:
    """Handle of the torch schedulers of a ReferenceDecaySGD."""

    def __init__(self, optimizer: ReferenceDecaySGD) -> None:
        self.optimizer = optimizer

    def step(self, metrics: Any = None) -> None:
        """Step every scheduler that takes no metric; or, given metrics, every one that does."""
        for _, members in self.optimizer.attached:
            for member in members:
                if isinstance(member, torch.optim.lr_scheduler.ReduceLROnPlateau):
                    if metrics is not None:
                        member.step(as_metric(metrics))
                elif metrics is None:
                    member.step()

    def get_last_lr(self) -> list[float]:
        """Return the rates that the next step will use."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]
