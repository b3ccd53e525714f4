"""A schedule's arguments, accepted and refused; schedules as values."""

import copy
import inspect
import pickle

import numpy as np
import pytest
from cases import SCHEDULES, fading
from support.loops import Torchs, groups_of, parameter
from support.twin import rates, sgd
from torch.optim import lr_scheduler

import lrfused
from lrfused import (
    CosineAnnealingLR,
    ExponentialLR,
    FusedDecaySGD,
    LambdaLR,
    MultiStepLR,
    ReduceLROnPlateau,
    StepLR,
)

pytestmark = pytest.mark.backends(
    "host", reason="test_device_schedule.py runs schedules on a device"
)

KINDS = sorted({case.kind for case in SCHEDULES})
NAMELESS = [case for case in SCHEDULES if "<" not in repr(case.ours())]  # functions have none


def arguments(function):
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in parameters if p.name not in ("self", "optimizer")]


@pytest.mark.parametrize("kind", KINDS)
def test_the_arguments_are_torchs_without_the_optimizer(kind):
    ours = arguments(getattr(lrfused, kind))
    theirs = arguments(getattr(lr_scheduler, kind))
    if kind == "ReduceLROnPlateau":  # and what it had, and what torch's never had
        beyond = {"verbose": False, "accumulate": 1, "nan": "bad", "process_group": None}
        assert {name: default for name, _, default in ours[-4:]} == beyond
        assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, kind, _ in ours[-3:])
        ours = ours[:-4]
    assert ours == theirs


@pytest.mark.parametrize("case", SCHEDULES, ids=str)
def test_schedules_are_values(case):
    assert case.ours() == case.ours()
    assert copy.deepcopy(StepLR(3)) == StepLR(3)
    assert pickle.loads(pickle.dumps(StepLR(3))) == StepLR(3)
    name = next(iter(case.kwargs), None)
    with pytest.raises((AttributeError, TypeError)):
        setattr(case.ours(), name or "patience", 3)


@pytest.mark.parametrize("case", NAMELESS, ids=str)
def test_the_repr_says_how_to_build_it(case):
    names = {kind: getattr(lrfused, kind) for kind in KINDS}
    assert eval(repr(case.ours()), names) == case.ours()


def test_different_schedules_differ():
    some = [StepLR(3), StepLR(4), StepLR(3, gamma=0.2), ExponentialLR(0.2), MultiStepLR([3])]
    for i, one in enumerate(some):
        for j, other in enumerate(some):
            assert (one == other) == (i == j)
    assert StepLR(3) == StepLR(step_size=3, gamma=0.1)
    assert StepLR(3) != 3


def test_changing_the_list_given_changes_no_schedule(backend):
    milestones = [2, 4]
    schedule = MultiStepLR(milestones)
    optimizer = FusedDecaySGD([parameter()], lr=0.1, schedule=schedule, backend=backend)
    milestones[0] = 1
    optimizer.step()
    assert rates(optimizer) == [0.1]
    optimizer.step()
    assert rates(optimizer) == [0.1 * 0.1]


def test_an_iterator_of_milestones_may_be_used_twice(backend):
    schedule = MultiStepLR(iter([2, 4]))
    for _ in range(2):
        optimizer = FusedDecaySGD([parameter()], lr=0.1, schedule=schedule, backend=backend)
        for _ in range(5):
            optimizer.step()
        assert rates(optimizer) == [0.1 * 0.1 * 0.1]


def test_one_schedule_serves_many_optimizers(backend):
    schedule = ReduceLROnPlateau(patience=0, factor=0.5)
    first, second = (
        FusedDecaySGD([parameter()], lr=0.1, schedule=schedule, backend=backend) for _ in range(2)
    )
    for metric in (1.0, 2.0, 3.0):
        first.scheduler.step(metric)
    assert rates(first) == [0.1 * 0.5 * 0.5]
    assert rates(second) == [0.1]
    assert second.scheduler.last_epoch == 0


# Where torch checks, its own words.
AS_TORCH = {
    "factor": ("ReduceLROnPlateau", {"factor": 1.0}),
    "factor-large": ("ReduceLROnPlateau", {"factor": 2}),
    "mode": ("ReduceLROnPlateau", {"mode": "best"}),
    "threshold_mode": ("ReduceLROnPlateau", {"threshold_mode": "relative"}),
    "min_lr": ("ReduceLROnPlateau", {"min_lr": [0.1]}),
    "min_lr-long": ("ReduceLROnPlateau", {"min_lr": [0.1, 0.2, 0.3]}),
    "lr_lambda": ("LambdaLR", {"lr_lambda": [fading]}),
    "lr_lambda-long": ("LambdaLR", {"lr_lambda": [fading] * 3}),
}


@pytest.mark.parametrize(("kind", "kwargs"), AS_TORCH.values(), ids=AS_TORCH)
def test_what_torch_refuses_is_refused_in_its_words(backend, kind, kwargs):
    with pytest.raises(ValueError, match=r".+") as theirs:
        getattr(lr_scheduler, kind)(sgd(groups_of([0.1, 0.2]), lr=0.1), **kwargs)
    with pytest.raises(ValueError, match=r".+") as ours:
        FusedDecaySGD(
            groups_of([0.1, 0.2]), schedule=getattr(lrfused, kind)(**kwargs), backend=backend
        )
    assert str(ours.value) == str(theirs.value)


REFUSED = {
    "step_size-zero": (lambda: StepLR(0), ValueError, "step_size"),
    "step_size-negative": (lambda: StepLR(-3), ValueError, "step_size"),
    "T_max-zero": (lambda: CosineAnnealingLR(0), ValueError, "T_max"),
    "T_max-negative": (lambda: CosineAnnealingLR(-5), ValueError, "T_max"),
    "gamma-word": (lambda: ExponentialLR("0.9"), (TypeError, ValueError), "gamma"),
    "milestones-number": (lambda: MultiStepLR(3), TypeError, "milestones"),
    "lambda-number": (lambda: LambdaLR(0.9), TypeError, "lr_lambda"),
    "lambda-list": (lambda: LambdaLR([fading, 0.9]), TypeError, "lr_lambda"),
    "patience-word": (
        lambda: ReduceLROnPlateau(patience="ten"),
        (TypeError, ValueError),
        "patience",
    ),
}


@pytest.mark.parametrize(("make", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_what_could_not_run_is_refused_at_once(backend, make, error, match):
    with pytest.raises(error, match=match):
        FusedDecaySGD(groups_of([0.1, 0.2]), schedule=make(), backend=backend)


@pytest.mark.parametrize("every", [0, -1, 1.5, "2"], ids=str)
def test_schedule_every_is_at_least_one_or_none(backend, every):
    with pytest.raises((ValueError, TypeError), match="schedule_every"):
        FusedDecaySGD(
            [parameter()], lr=0.1, schedule=StepLR(3), schedule_every=every, backend=backend
        )


NO_SCHEDULES = {
    "class": StepLR,
    "number": 3,
    "word": "StepLR",
    "function": fading,
    "list": [StepLR(3), None],
}


@pytest.mark.parametrize("schedule", NO_SCHEDULES.values(), ids=NO_SCHEDULES)
def test_what_is_no_schedule_is_refused(backend, schedule):
    with pytest.raises(TypeError, match="schedule"):
        FusedDecaySGD([parameter()], lr=0.1, schedule=schedule, backend=backend)


def test_a_scheduler_of_torch_is_refused_as_schedule(backend):
    torchs = lr_scheduler.StepLR(sgd([parameter()], lr=0.1), 3)
    with pytest.raises(TypeError, match="schedule"):
        FusedDecaySGD([parameter()], lr=0.1, schedule=torchs, backend=backend)


def test_a_lambda_is_asked_as_torch_asks(backend):
    results = {
        "numpy": lambda epoch: np.float64(0.9) ** epoch,
        "numpy32": lambda epoch: np.float32(0.9),
        "int": lambda epoch: 1 + epoch % 2,
        "bool": lambda epoch: epoch < 3,
    }
    for name, function in results.items():
        optimizer = FusedDecaySGD(
            [parameter()], lr=0.1, schedule=LambdaLR(function), backend=backend
        )
        torchs = lr_scheduler.LambdaLR(sgd([parameter()], lr=0.1), function)
        for _ in range(6):
            assert type(rates(optimizer)[0]) is float, name
            assert rates(optimizer)[0] == float(torchs.get_last_lr()[0]), name
            optimizer.step()
            torchs.optimizer.step()
            torchs.step()


def test_a_lambda_that_gives_no_number_is_refused(backend):
    with pytest.raises((TypeError, ValueError), match="lr_lambda"):  # noqa: PT012
        optimizer = FusedDecaySGD(
            [parameter()], lr=0.1, schedule=LambdaLR(lambda epoch: "fast"), backend=backend
        )
        optimizer.step()


def test_a_group_added_later_joins_at_its_own_rate(backend):
    for name, kwargs in {
        "StepLR": {"step_size": 3, "gamma": 0.7},
        "MultiStepLR": {"milestones": [4, 9]},
        "ExponentialLR": {"gamma": 0.9},
        "CosineAnnealingLR": {"T_max": 40, "eta_min": 0.01},
        "ReduceLROnPlateau": {"patience": 0, "factor": 0.5},
    }.items():
        opt = FusedDecaySGD(
            groups_of([0.1]), lr=0.5, schedule=getattr(lrfused, name)(**kwargs), backend=backend
        )
        torchs = Torchs(groups_of([0.1]), [])
        torchs.schedulers = [getattr(lr_scheduler, name)(torchs.opt, **kwargs)]
        for step in range(30):
            if step in (5, 11):
                opt.add_param_group(groups_of([0.3])[0])
                torchs.opt.add_param_group(groups_of([0.3])[0])
            opt.step()
            torchs.step()
            if name == "ReduceLROnPlateau":
                opt.scheduler.step(float(step))
                torchs.feed(float(step))
            assert rates(opt) == rates(torchs.opt), (name, step)
        assert len(rates(opt)) == 3


def test_a_cosine_climbs_from_its_own_base_in_a_group_added_later(backend):
    opt = FusedDecaySGD(
        groups_of([0.1]), schedule=CosineAnnealingLR(10, eta_min=0.01), backend=backend
    )
    alone = Torchs(groups_of([0.3]), [])
    for _ in range(4):
        opt.step()
    opt.add_param_group(groups_of([0.3])[0])
    alone.schedulers = [lr_scheduler.CosineAnnealingLR(alone.opt, 10, eta_min=0.01)]
    alone.opt.step()
    alone.schedulers[0].last_epoch = 4
    for step in range(40):
        opt.step()
        alone.step()
        assert rates(opt)[1:] == rates(alone.opt), step


def test_a_group_that_torch_refuses_later_is_refused(backend):
    opt = FusedDecaySGD(groups_of([0.1]), schedule=LambdaLR(fading), backend=backend)
    opt.step()
    before = rates(opt)
    with pytest.raises((ValueError, RuntimeError), match="LambdaLR"):
        opt.add_param_group(groups_of([0.3])[0])
    assert rates(opt) == before
    opt.step()
    assert rates(opt) == [0.1 * fading(2)]
    floors = ReduceLROnPlateau(min_lr=[0.01])
    opt = FusedDecaySGD(groups_of([0.1]), schedule=floors, backend=backend)
    with pytest.raises((ValueError, RuntimeError), match="min_lr"):
        opt.add_param_group(groups_of([0.3])[0])
    assert len(opt.param_groups) == 1


def test_a_group_added_later_may_bring_its_own_schedule(backend):
    opt = FusedDecaySGD(groups_of([0.1]), schedule=LambdaLR(fading), backend=backend)
    opt.step()
    opt.add_param_group({**groups_of([0.3])[0], "schedule": StepLR(2, gamma=0.5)})
    opt.step()
    assert rates(opt) == [0.1 * fading(2), 0.3]
    opt.step()
    assert rates(opt) == [0.1 * fading(3), 0.15]
    opt.add_param_group({**groups_of([0.7])[0], "schedule": None})
    opt.step()
    assert rates(opt)[2] == 0.7
