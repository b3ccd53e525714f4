"""The schedules that people write by hand: each is its formula, in fp64, at every step."""

import math
import pickle

import pytest
from support.loops import groups_of
from support.twin import rates, sgd
from torch.optim import lr_scheduler

import lrfused
from lrfused import CosineAnnealingLR, ExponentialLR, FusedDecaySGD

pytestmark = pytest.mark.backends(
    "host", reason="test_device_schedule.py runs schedules on a device"
)


def run(schedule, steps, backend, lr=0.1):
    opt = FusedDecaySGD(groups_of([lr, 0.3]), schedule=schedule, backend=backend)
    seen = []
    for _ in range(steps):
        seen.append(rates(opt))
        opt.step()
    return seen


def cosine(t, total, warm, floor):
    x = min(1.0, max(0.0, (t - warm) / (total - warm)))
    return floor + (1 - floor) * ((1 + math.cos(math.pi * x)) / 2)


FALLS = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "1-sqrt": lambda x: 1 - math.sqrt(x),
}


def wsd(t, fall, floor):
    x = min(1.0, max(0.0, (t - 70) / 30))
    return floor + (1 - floor) * FALLS[fall](x)


FORMULAS = {
    "cosine": (
        lrfused.cosine_with_warmup(100, 10),
        lambda t: t / 10 if t < 10 else cosine(t, 100, 10, 0.0),
    ),
    "cosine-floor": (
        lrfused.cosine_with_warmup(90, 0, floor=0.1), lambda t: cosine(t, 90, 0, 0.1),
    ),
    "inverse-sqrt": (
        lrfused.inverse_sqrt(16), lambda t: t / 16 if t < 16 else math.sqrt(16 / t),
    ),
    **{
        f"wsd-{fall}-{floor}": (
            lrfused.warmup_stable_decay(100, 20, 30, fall, floor),
            lambda t, fall=fall, floor=floor: t / 20 if t < 20 else wsd(t, fall, floor),
        )
        for fall in FALLS
        for floor in (0.0, 0.2)
    },
}  # fmt: skip


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS.values(), ids=FORMULAS)
def test_a_recipe_is_its_formula(backend, schedule, formula):
    expected = [[0.1 * formula(t), 0.3 * formula(t)] for t in range(130)]
    assert run(schedule, 130, backend) == expected
    assert expected[0] == [0.0, 0.0] or formula(0) == 1.0
    assert pickle.loads(pickle.dumps(schedule)) == schedule


def test_warmup_leads_into_any_schedule(backend):
    seen = run(lrfused.warmup(CosineAnnealingLR(50), 10, start_factor=0.1), 40, backend)
    assert seen[10:] == run(CosineAnnealingLR(50), 30, backend)
    torchs = sgd(groups_of([0.1, 0.3]), lr=0.1)
    linear = lr_scheduler.LinearLR(torchs, 0.1, 1.0, 10)
    for t in range(10):
        assert seen[t] == rates(torchs)
        torchs.step()
        linear.step()
    assert lrfused.warmup(ExponentialLR(0.9), 5).milestones == [5]


@pytest.mark.parametrize(
    "make",
    [
        lambda: lrfused.warmup(ExponentialLR(0.9), 0),
        lambda: lrfused.warmup(ExponentialLR(0.9), 5, start_factor="fast"),
        lambda: lrfused.cosine_with_warmup(10, 10),
        lambda: lrfused.cosine_with_warmup(10, 2, floor=1.5),
        lambda: lrfused.warmup_stable_decay(10, 5, 6),
        lambda: lrfused.warmup_stable_decay(10, 5, 5, decay="square"),
        lambda: lrfused.inverse_sqrt(0),
    ],
)
def test_what_has_no_meaning_is_refused(make):
    with pytest.raises((ValueError, TypeError), match=r"steps|floor|decay|start_factor"):
        make()
