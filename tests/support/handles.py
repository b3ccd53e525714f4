"""The same run with torch's scheduler, and with lrfused's handle in its place."""

import torch
from torch.optim import lr_scheduler

from lrfused import fuse


def decay(epoch):
    return 0.95**epoch


MAKERS = {
    "step": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "multistep": lambda o: lr_scheduler.MultiStepLR(o, [2, 5], 0.3),
    "constant": lambda o: lr_scheduler.ConstantLR(o, 0.5, 4),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.2, 1.0, 6),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 9, 2.0),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 7, 0.01),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4, 2, 0.001),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, decay),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.2, 4, cycle_momentum=True),
    "onecycle": lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=40),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=2, factor=0.5),
}


def groups():
    return [
        {"params": [torch.nn.Parameter(torch.ones(3))], "lr": 0.1},
        {"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.05},
    ]


class Pair:
    """A run with torch's scheduler, and the same run with lrfused's handle."""

    def __init__(self, kind):
        self.fed = kind == "plateau"
        torchs = torch.optim.SGD(groups(), lr=0.1, momentum=0.9)
        self.runs = [(torchs, MAKERS[kind](torchs)), fuse(*self.torch_run(kind))]

    @staticmethod
    def torch_run(kind):
        optimizer = torch.optim.SGD(groups(), lr=0.1, momentum=0.9)
        return optimizer, MAKERS[kind](optimizer)

    def step(self, count=1):
        for k in range(count):
            for optimizer, scheduler in self.runs:
                for group in optimizer.param_groups:
                    for p in group["params"]:
                        p.grad = torch.full_like(p, 0.1)
                optimizer.step()
                scheduler.step(*[1.0 + k % 2] * self.fed)
            self.compare()

    def both(self, act):
        results = [act(scheduler) for _, scheduler in self.runs]
        assert results[0] == results[1]
        self.compare()
        return results[1]

    def compare(self):
        (torchs, scheduler), (ours, handle) = self.runs
        for theirs, mine in zip(torchs.param_groups, ours.param_groups, strict=True):
            assert mine["lr"] == theirs["lr"]
            assert mine["momentum"] == theirs["momentum"]
            for p, q in zip(theirs["params"], mine["params"], strict=True):
                assert torch.equal(p, q)
        assert handle.get_last_lr() == scheduler.get_last_lr()
        assert handle.last_epoch == scheduler.last_epoch
