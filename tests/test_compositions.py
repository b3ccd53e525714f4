"""Compositions of any shape against torch: the rates and momenta are equal, bit for bit."""

import warnings

import pytest
import torch
from cases import STEPPED, Schedule, named
from hypothesis import HealthCheck, given, settings
from support.compositions import RACES, race_and_resume
from support.loops import RATES, Race, groups_of, momenta, parameter
from support.twin import rates, sgd
from torch.optim import lr_scheduler

import lrfused
from lrfused import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    FusedDecaySGD,
    LinearLR,
    MultiplicativeLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
    StepLR,
)
from lrfused.backends import reference
from lrfused.rates.rates import Rates

pytestmark = pytest.mark.backends("host", "emulated", reason="test_gpu.py runs schedules on a GPU")


@settings(
    deadline=None, derandomize=True, max_examples=250, suppress_health_check=[HealthCheck.too_slow]
)
@given(*RACES)
def test_any_composition_equals_torchs_and_resumes(tree, groups, every, point):
    race_and_resume(tree, groups, every, point)


@pytest.mark.parametrize("case", [c for c in STEPPED if c.members], ids=str)
def test_copies_of_a_composition_know_nothing_of_each_other(case):
    race = Race([case], "compiled", RATES[2])
    race.run(5)
    other = FusedDecaySGD(groups_of(RATES[2]), schedule=case.ours())
    for _ in range(40):
        other.step()
    race.run(60)


def test_a_composition_that_torch_breaks_at_a_milestone_is_refused_at_once():
    inner = SequentialLR([LinearLR(), ExponentialLR(0.9)], [5])
    for later in (inner, ChainedScheduler([StepLR(3)])):
        with pytest.raises(ValueError, match=r"SequentialLR\(schedulers=.*index 1"):
            SequentialLR([StepLR(3), later], [10])
    torchs = sgd([parameter()], lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        members = [
            lr_scheduler.StepLR(torchs, 3),
            lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(torchs, 3)]),
        ]
        broken = lr_scheduler.SequentialLR(torchs, members, [2])
        broken.step()
        with pytest.raises((AttributeError, NotImplementedError)):
            broken.step()


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: SequentialLR([StepLR(3), LinearLR(1, 1, 0)], [4]), ValueError, "total_iters"),
        (lambda: SequentialLR([StepLR(3), PolynomialLR(0)], [4]), ValueError, "total_iters"),
        (lambda: SequentialLR([StepLR(3)], ["4"]), TypeError, "milestones"),
        (lambda: SequentialLR([lr_scheduler.StepLR, StepLR(3)], [4]), TypeError, "schedulers"),
        (lambda: SequentialLR(StepLR(3), []), TypeError, "schedulers"),
        (lambda: ChainedScheduler(StepLR(3)), TypeError, "schedulers"),
        (lambda: ConstantLR(factor=0), ValueError, "factor"),
        (lambda: PolynomialLR(power=-1), ValueError, "power"),
        (lambda: lrfused.CyclicLR(0.1, 0.2, step_size_up=0), ValueError, "step_size_up"),
        (lambda: MultiplicativeLR(0.5), TypeError, "lr_lambda"),
    ],
)  # fmt: skip
def test_what_could_not_run_is_refused_at_once(make, error, match):
    with pytest.raises(error, match=match):
        make()


AS_TORCH = {
    "no-members": ("ChainedScheduler", {"schedulers": []}),
    "sequence-of-none": ("SequentialLR", {"schedulers": [], "milestones": []}),
    "milestones": ("SequentialLR", {"schedulers": named("StepLR-each"), "milestones": [3]}),
    "T_0": ("CosineAnnealingWarmRestarts", {"T_0": 0}),
    "T_mult": ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 0.5}),
    "factor": ("ConstantLR", {"factor": 1.5}),
    "start_factor": ("LinearLR", {"start_factor": 0.0}),
    "end_factor": ("LinearLR", {"end_factor": 1.5}),
    "total_steps": ("OneCycleLR", {"max_lr": 0.1, "total_steps": -3}),
    "no-steps": ("OneCycleLR", {"max_lr": 0.1}),
    "pct_start": ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9, "pct_start": 2.0}),
    "strategy": ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9, "anneal_strategy": "sine"}),
    "max_lr": ("OneCycleLR", {"max_lr": [0.1], "total_steps": 9}),
    "mode": ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.2, "mode": "square"}),
    "base_lr": ("CyclicLR", {"base_lr": [0.1], "max_lr": 0.2}),
    "plateau": (
        "SequentialLR", {"schedulers": named("ReduceLROnPlateau-default"), "milestones": []},
    ),
    "plateau-chained": ("ChainedScheduler", {"schedulers": named("ReduceLROnPlateau-default")}),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "kwargs"), AS_TORCH.values(), ids=AS_TORCH)
def test_what_torch_refuses_is_refused_in_its_words(kind, kwargs):
    members = (
        {"schedulers": [m.ours() for m in kwargs["schedulers"]]} if "schedulers" in kwargs else {}
    )
    optimizer = sgd(groups_of([0.1, 0.2]), lr=0.1)
    theirs_kwargs = dict(kwargs)
    if members:
        theirs_kwargs["schedulers"] = [m.torchs(optimizer) for m in kwargs["schedulers"]]
    given_optimizer = {} if kind == "ChainedScheduler" else {"optimizer": optimizer}
    with pytest.raises((ValueError, IndexError)) as theirs:
        getattr(lr_scheduler, kind)(**given_optimizer, **theirs_kwargs)
    with pytest.raises((ValueError, IndexError)) as ours:
        FusedDecaySGD(
            groups_of([0.1, 0.2]), schedule=getattr(lrfused, kind)(**{**kwargs, **members})
        )
    assert str(ours.value) == str(theirs.value)


def test_one_cycle_ends_as_torchs_and_changes_nothing(backend):
    opt = FusedDecaySGD([parameter()], lr=0.1, schedule=OneCycleLR(0.2, 20), backend=backend)
    torchs = sgd([parameter()], lr=0.1, momentum=0)
    scheduler = lr_scheduler.OneCycleLR(torchs, 0.2, 20)
    p = opt.param_groups[0]["params"][0]
    p.grad = torch.ones(1)
    for _ in range(20):
        opt.step()
        torchs.step()
        scheduler.step()
        assert rates(opt) == rates(torchs)
    before = (p.detach().clone(), rates(opt), momenta(opt))
    with pytest.raises(ValueError, match="Tried to step") as theirs:
        scheduler.step()
    for _ in range(2):
        with pytest.raises(ValueError, match="Tried to step") as ours:
            opt.step()
        assert str(ours.value) == str(theirs.value)
        assert torch.equal(p, before[0])
        assert (rates(opt), momenta(opt)) == before[1:]
        assert opt.scheduler.last_epoch == 20


def test_a_momentum_written_by_hand_is_used_until_the_cycle_writes_the_next(backend):
    kwargs = {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 7}
    race = Race([Schedule("cyclic", "CyclicLR", kwargs)], backend, RATES[2], momentum=0.3)
    for optimizer in race.both:
        for group in optimizer.param_groups:
            group["momentum"] = 0.123
    assert momenta(race.opt) == [0.123, 0.123]
    race.run(20)


def test_cycled_momentum_moves_the_parameters_as_torch_does(backend):
    values = torch.linspace(-1, 1, 33)
    ours, theirs = (values.clone().requires_grad_() for _ in range(2))
    opt = FusedDecaySGD([ours], lr=0.1, schedule=OneCycleLR(0.2, 60), backend=backend)
    torchs = sgd([theirs], lr=0.1)
    scheduler = lr_scheduler.OneCycleLR(torchs, 0.2, 60)
    for step in range(60):
        ours.grad, theirs.grad = (torch.sin(values * step) + 0.1 for _ in range(2))
        opt.step()
        torchs.step()
        scheduler.step()
        assert torch.equal(ours, theirs), step
        assert torch.equal(
            opt.state[ours]["momentum_buffer"], torchs.state[theirs]["momentum_buffer"]
        )


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "names",
    [
        ("LinearLR-warmup", "CosineAnnealingLR-floor", "ReduceLROnPlateau-hasty"),
        ("SequentialLR-warmup-cosine", "ReduceLROnPlateau-cooldown"),
        ("ReduceLROnPlateau-hasty", "OneCycleLR-three"),
        ("ChainedScheduler-relative", "ReduceLROnPlateau-hasty", "MultiStepLR-twice"),
    ],
    ids=" ".join,
)
def test_a_plateau_multiplies_what_the_others_give(backend, names, count):
    """Torch takes no plateau in a composition; its loop attaches all of them to one optimizer."""
    race = Race(named(*names), backend, RATES[count])
    for epoch in range(12):
        race.run(7)
        race.feed(1.0 + epoch % 3)


def test_a_table_is_a_window_and_shared_between_groups():
    """A million-step cosine takes 8 KiB, not 8 MB, however many groups follow it."""
    made = []

    class Program(reference.Program):
        def __init__(self, moved, packed, *rest, **named):
            super().__init__(moved, packed, *rest, **named)
            made.append(packed)

    schedule = (CosineAnnealingLR(1_000_000),)
    groups = [
        {**group, "momentum": 0.0, "schedule": schedule} for group in groups_of([0.1, 0.2, 0.3])
    ]
    Rates(groups, Program, capturable=False)
    assert len(made[-1].tables) == 1024
