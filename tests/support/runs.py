"""The same run with torch's optimizer and schedulers, and with ours."""

import torch
from cases import HYPER

from lrfused import FusedDecaySGD
from support.loops import Torchs
from support.twin import leaf, numbers


def groups(lrs, dtype=torch.float32, values=None):
    values = values or [numbers(70, dtype=dtype, seed=i) for i in range(len(lrs))]
    return [{"params": [leaf(v)], "lr": lr} for v, lr in zip(values, lrs, strict=True)]


def give(optimizer, step):
    for i, group in enumerate(optimizer.param_groups):
        for p in group["params"]:
            p.grad = numbers(*p.shape, dtype=p.dtype, seed=100 * step + i)


class Torch:
    """A run with torch, a metric at every second step."""

    def __init__(self, case, lrs, values=None):
        self.torchs = Torchs(groups(lrs, values=values), [case], **HYPER["momentum-decay"])
        self.opt, self.scheduler = self.torchs.opt, self.torchs.schedulers[0]

    def step(self, number):
        give(self.opt, number)
        self.torchs.step()
        if number % 2:
            self.torchs.feed(1.0 + number % 5)


class Ours:
    """The same run with FusedDecaySGD."""

    def __init__(self, case, lrs, backend, values=None):
        self.case = case
        self.opt = FusedDecaySGD(
            groups(lrs, values=values),
            schedule=case.ours(),
            backend=backend,
            **HYPER["momentum-decay"],
        )
        self.scheduler = self.opt.scheduler

    def step(self, number):
        give(self.opt, number)
        self.opt.step()
        if number % 2 and self.case.is_plateau:
            self.scheduler.step(1.0 + number % 5)


def values_of(run):
    return [p.detach().clone() for group in run.opt.param_groups for p in group["params"]]
