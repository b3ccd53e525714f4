"""Training loops that only watch the rate: lrfused's and torch's, with the same groups."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from cases import Schedule
from torch import Tensor

from lrfused import FusedDecaySGD
from support.bits import assert_same_rates
from support.twin import rates, sgd

RATES = {1: [0.1], 2: [0.1, 0.037]}


def group_counts(case: Schedule) -> list[int]:
    return [1, 2] if case.groups is None else [case.groups]


def products(cases: Sequence[Schedule]) -> list[Any]:
    """Pair each schedule with each number of groups it is for."""
    return [(case, count) for case in cases for count in group_counts(case)]


def product_ids(pair: tuple[Schedule, int]) -> str:
    return f"{pair[0]}-{pair[1]}group" + "s" * (pair[1] > 1)


def parameter() -> Tensor:
    return torch.ones(1, requires_grad=True)


def groups_of(lrs: Sequence[float], **extra: Any) -> list[dict[str, Any]]:
    return [{"params": [parameter()], "lr": lr, **extra} for lr in lrs]


def epoch_of(scheduler: Any) -> int:
    """Return a scheduler's epoch; torch's chains have none, so that of their first member."""
    return (
        epoch_of(scheduler._schedulers[0])
        if not hasattr(scheduler, "last_epoch")
        else scheduler.last_epoch
    )


def is_plateau(scheduler: Any) -> bool:
    return isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)


def leaves(case: Schedule) -> list[Schedule]:
    """List the schedules that a composition is made of."""
    return [leaf for m in case.members for leaf in leaves(m)] if case.members else [case]


def end_of(case: Schedule) -> float:
    """Return the last epoch that a schedule can be stepped to."""
    if case.kind != "OneCycleLR":
        return math.inf
    total = case.kwargs.get("total_steps") or case.kwargs["epochs"] * case.kwargs["steps_per_epoch"]
    return total - (case.kwargs.get("pct_start") == 1.0)  # where torch divides by zero


def momenta(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["momentum"] for group in optimizer.param_groups]


class Torchs:
    """torch.optim.SGD with torch's schedulers, chained in order, stepped as the fused one is."""

    def __init__(
        self, groups: Any, cases: Sequence[Schedule], every: int | None = 1, **hyper: Any
    ) -> None:
        self.opt = sgd(groups, lr=hyper.pop("lr", 0.5), **hyper)
        self.schedulers = [case.torchs(self.opt) for case in cases]
        self.every, self.count = every, 0

    def step(self, update: bool = True) -> None:
        """Step; without gradients there is nothing to update, only to count."""
        if update:
            self.opt.step()
        self.count += 1
        if self.every is not None and self.count % self.every == 0:
            self.advance()

    def advance(self) -> None:
        for scheduler in self.schedulers:
            if not is_plateau(scheduler):
                scheduler.step()

    def feed(self, metric: Any) -> None:
        for scheduler in self.schedulers:
            if is_plateau(scheduler):
                scheduler.step(metric)

    @property
    def last_epoch(self) -> int:
        return epoch_of(next((s for s in self.schedulers if not is_plateau(s)), self.schedulers[0]))

    def get_last_lr(self) -> list[float]:
        if len(self.schedulers) > 1:  # the last of them may not be the last that was at work
            return rates(self.opt)
        return self.schedulers[0].get_last_lr()


class Race:
    """Both loops side by side; every step compares the rates of every group."""

    def __init__(
        self,
        cases: Sequence[Schedule],
        backend: str,
        lrs: Sequence[float] = (0.1,),
        every: int | None = 1,
        **extra: Any,
    ) -> None:
        ours = [case.ours() for case in cases]
        self.opt = FusedDecaySGD(
            groups_of(lrs, **extra),
            lr=0.5,
            backend=backend,
            schedule=ours[0] if len(ours) == 1 else ours,
            schedule_every=every,
        )
        self.torchs = Torchs(groups_of(lrs, **extra), cases, every)
        self.check("at the start")

    @property
    def both(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        return self.opt, self.torchs.opt

    def check(self, when: str = "") -> None:
        assert_same_rates(rates(self.opt), rates(self.torchs.opt), when)
        handle = self.opt.scheduler
        assert_same_rates(handle.get_last_lr(), self.torchs.get_last_lr(), f"{when}, get_last_lr")
        assert handle.last_epoch == self.torchs.last_epoch, when

    def step(self) -> None:
        self.opt.step()
        self.torchs.step(update=self.torchs.count == 0)
        when = f"after step {self.torchs.count}"
        assert_same_rates(rates(self.opt), rates(self.torchs.opt), when)
        assert_same_rates(momenta(self.opt), momenta(self.torchs.opt), f"{when}, momentum")
        if self.torchs.count < 50 or self.torchs.count % 50 == 0:
            self.check(when)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def advance(self) -> None:
        self.opt.scheduler.step()
        self.torchs.advance()
        self.check(f"advanced after step {self.torchs.count}")

    def feed(self, metric: Any, theirs: Any = None) -> None:
        self.opt.scheduler.step(metric)
        self.torchs.feed(metric if theirs is None else theirs)
        self.check(f"fed {metric!r}")

    def write(self, lr: Any, group: int = 0) -> None:
        for optimizer in self.both:
            optimizer.param_groups[group]["lr"] = lr
