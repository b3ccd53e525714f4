"""Arguments in fp32 or fp16: lrfused goes on in fp64, as torch does with Python's floats."""

import numpy as np
import pytest
import torch
from support.fused import optimizer_of
from torch.optim import lr_scheduler

import lrfused

SINGLE = {
    "np.float32": np.float32,
    "np.float16": np.float16,
    "tensor": lambda x: torch.tensor(x, dtype=torch.float32),
}
CASES = {
    "lr": (lambda kind: kind(0.1), "ExponentialLR", lambda _: {"gamma": 0.9}),
    "gamma": (lambda _: 0.1, "ExponentialLR", lambda kind: {"gamma": kind(0.9)}),
    "eta_min": (lambda _: 0.1, "CosineAnnealingLR",
                lambda kind: {"T_max": 5, "eta_min": kind(0.01)}),
}  # fmt: skip


def run(optimizer, step, steps=4):
    rates = []
    for _ in range(steps):
        optimizer.step()
        step()
        rates.append(float(optimizer.param_groups[0]["lr"]))
    return rates


@pytest.mark.parametrize("kind", SINGLE.values(), ids=SINGLE)
@pytest.mark.parametrize(("lr", "name", "arguments"), CASES.values(), ids=CASES)
def test_the_rates_are_torchs_of_the_same_numbers_in_fp64(lr, name, arguments, kind):
    def made(kind):
        optimizer = optimizer_of(lr(kind))
        return optimizer, getattr(lr_scheduler, name)(optimizer, **arguments(kind))

    optimizer, scheduler = made(lambda x: float(kind(x)))
    expected = run(optimizer, scheduler.step)
    if isinstance(lr(kind), torch.Tensor):  # it is only filled with the rate
        expected = torch.tensor(expected).tolist()
    optimizer, handle = lrfused.fuse(*made(kind))
    assert run(optimizer, handle.step) == expected
    ours = lrfused.FusedDecaySGD(
        [torch.ones(1, requires_grad=True)],
        lr=lr(kind),
        schedule=getattr(lrfused, name)(**arguments(kind)),
        schedule_every=None,
    )
    assert run(ours, ours.scheduler.step) == expected
