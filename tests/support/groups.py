"""A FusedDecaySGD and a torch.optim.SGD whose groups are changed and stepped alike."""

import torch

from lrfused import FusedDecaySGD

from .bits import assert_same_bits, assert_same_rates


def parameters(count=4):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(3)) for _ in range(count)]


def groups_of(params):
    return [
        {"params": [p], "lr": lr} for p, lr in zip(params, (0.1, 0.02, 0.3, 0.04), strict=False)
    ]


class Pair:
    """A FusedDecaySGD and a torch.optim.SGD with a scheduler, changed and stepped alike."""

    def __init__(self, backend, schedule=None, scheduler=None, count=3, **settings):
        self.params = [parameters(), parameters()]
        given = [groups_of(params[:count]) for params in self.params]
        self.ours = FusedDecaySGD(
            given[0], lr=0.5, momentum=0.9, schedule=schedule, backend=backend, **settings
        )
        self.theirs = torch.optim.SGD(given[1], lr=0.5, momentum=0.9, foreach=False, fused=False)
        self.scheduler = scheduler and scheduler(self.theirs)

    def change(self, function):
        for optimizer, params in zip((self.ours, self.theirs), self.params, strict=True):
            function(optimizer, params)

    def step(self, times=1):
        for _ in range(times):
            for params in self.params:
                for p in params:
                    p.grad = torch.full_like(p, 0.25)
            self.ours.step()
            self.theirs.step()
            if self.scheduler is not None:
                self.scheduler.step()
            self.compare()

    def compare(self):
        for ours, theirs in zip(*self.params, strict=True):
            assert_same_bits(ours, theirs)
        rates = [[g["lr"] for g in o.param_groups] for o in (self.ours, self.theirs)]
        assert_same_rates(*rates)
