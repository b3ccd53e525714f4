"""Numbers of numpy, torch and Python as arguments of schedules: plain there and in checkpoints."""

import inspect
import re
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from support.arguments import assert_loads_its_own, optimizer_of, products, trained
from support.loops import groups_of
from support.twin import rates, sgd
from torch.optim import lr_scheduler

import lrfused
from lrfused import fuse

# Every number that a schedule takes, each a sum of a few powers of two: exact in all types.
ARGUMENTS = {
    "StepLR": {"step_size": 3, "gamma": 0.5},
    "MultiStepLR": {"milestones": [2, 3, 3], "gamma": 0.5},
    "ConstantLR": {"factor": 0.5, "total_iters": 3},
    "LinearLR": {"start_factor": 0.25, "end_factor": 0.75, "total_iters": 3},
    "ExponentialLR": {"gamma": 0.75},
    "PolynomialLR": {"total_iters": 5, "power": 1.5},
    "CosineAnnealingLR": {"T_max": 3, "eta_min": 0.0625},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2, "eta_min": 0.0625},
    "CyclicLR": {
        "base_lr": 0.125, "max_lr": 0.5, "step_size_up": 3, "step_size_down": 2, "gamma": 0.75,
        "cycle_momentum": True, "base_momentum": 0.5, "max_momentum": 0.75,
    },
    "CyclicLR of groups": {"base_lr": [0.125, 0.25], "max_lr": [0.5, 0.75]},
    "OneCycleLR": {
        "max_lr": 0.5, "total_steps": 9, "pct_start": 0.25, "cycle_momentum": True,
        "base_momentum": 0.5, "max_momentum": 0.75, "div_factor": 8.0, "final_div_factor": 16.0,
        "three_phase": True,
    },
    "OneCycleLR of groups": {
        "max_lr": [0.5, 0.25], "epochs": 3, "steps_per_epoch": 3, "base_momentum": [0.5, 0.25],
        "max_momentum": [0.75, 0.875],
    },
    "ReduceLROnPlateau": {
        "factor": 0.5, "patience": 0, "threshold": 0.125, "cooldown": 1, "min_lr": 0.0625,
        "eps": 0.03125, "verbose": False, "accumulate": 1,
    },
    "ReduceLROnPlateau of groups": {"patience": 0, "factor": 0.25, "min_lr": [0.0625, 0.03125]},
    "SequentialLR": {"milestones": [2]},
    "ChainedScheduler": {},
    "LambdaLR": {},
    "MultiplicativeLR": {},
}  # fmt: skip
MEMBERS = {"schedulers": [lrfused.ExponentialLR(0.5), lrfused.StepLR(2)]}
OTHERS = {
    "SequentialLR": MEMBERS,
    "ChainedScheduler": MEMBERS,
    "LambdaLR": {"lr_lambda": float},
    "MultiplicativeLR": {"lr_lambda": float},
}
RECIPES = {
    "warmup": {"steps": 3, "start_factor": 0.25},
    "cosine_with_warmup": {"total_steps": 9, "warmup_steps": 3, "floor": 0.25},
    "warmup_stable_decay": {"total_steps": 9, "warmup_steps": 3, "decay_steps": 3, "floor": 0.25},
    "inverse_sqrt": {"warmup_steps": 3},
}


def schedule_of(kind, given):
    name = kind.split()[0]
    if name == "warmup":
        return lrfused.warmup(lrfused.StepLR(2), **given)
    return getattr(lrfused, name)(**given, **OTHERS.get(name, {}))


def test_every_argument_that_takes_numbers_has_a_row():
    for name in lrfused.schedules.__all__:
        made = getattr(lrfused.schedules, name)
        if name in ("Adopted", "Schedule"):
            continue
        rows = {**ARGUMENTS, **RECIPES}
        tabled = {key for kind in rows if kind.split()[0] == name for key in rows[kind]}
        wanted = {
            key
            for key, parameter in inspect.signature(made).parameters.items()
            if re.search(r"\b(int|float|bool)\b", parameter.annotation)
            and "Callable" not in parameter.annotation
        }
        assert wanted - {"last_epoch"} == tabled, name


@pytest.mark.parametrize(("kind", "name", "convert"), products({**ARGUMENTS, **RECIPES}))
def test_a_schedule_loads_its_own_checkpoint(kind, name, convert):
    plain = {**ARGUMENTS, **RECIPES}[kind]
    given = {**plain, name: convert(plain[name])}
    assert_loads_its_own(lambda: (optimizer_of(schedule_of(kind, given)), None))
    ours, theirs = optimizer_of(schedule_of(kind, given)), optimizer_of(schedule_of(kind, plain))
    assert trained(ours, None) == trained(theirs, None)
    if kind in ARGUMENTS:
        kept = schedule_of(kind, given).arguments[name]
        assert kept == plain[name]
        several = kept if isinstance(plain[name], list) else [kept]
        assert {type(one) for one in several} <= {bool, int, float}


def test_a_value_keeps_its_number_and_its_kind():
    assert lrfused.ExponentialLR(np.float32(0.1)).gamma == float(np.float32(0.1)) != 0.1
    assert lrfused.ExponentialLR(Fraction(1, 3)).gamma == 1 / 3
    for given, kind in ((3, int), (3.0, float), (np.int32(3), int), (np.float32(3), float)):
        assert type(lrfused.StepLR(given).step_size) is kind


# Torch multiplies by a value of these types as by the number, in fp64.
AS_TORCH = {"np.float64", "np.int64", "Fraction", "np.bool", "list-of-numpy", "tuple", "enum"}


@pytest.mark.parametrize(("kind", "name", "convert"), products(ARGUMENTS))
def test_a_fused_scheduler_loads_its_own_checkpoint(kind, name, convert, request):
    members = {"SequentialLR", "ChainedScheduler"}
    base, plain = kind.split()[0], dict(ARGUMENTS[kind])
    if name in ("verbose", "accumulate"):
        pytest.skip("not torch's")
    plain.pop("verbose", None), plain.pop("accumulate", None)
    given = {**plain, name: convert(plain[name])}

    def torchs():
        optimizer = sgd(groups_of([0.5, 0.25], momentum=0.5), lr=0.1)
        if base in members:
            own = [lr_scheduler.ExponentialLR(optimizer, 0.5), lr_scheduler.StepLR(optimizer, 2)]
            return optimizer, lr_scheduler.SequentialLR(optimizer, own, **given)
        return optimizer, getattr(lr_scheduler, base)(optimizer, **given)

    def fused():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*has tensors, which torch never reaches")
            optimizer, handle = fuse(*torchs())
        return optimizer, None if "Plateau" in kind else handle

    try:
        optimizer, scheduler = torchs()
        for step in range(4):
            optimizer.step()
            scheduler.step(*([1.0 + step] if "Plateau" in kind else []))
        theirs = [float(rate) for rate in rates(optimizer)]
    except Exception as error:
        pytest.skip(f"torch refuses it: {error}")
    assert_loads_its_own(fused)
    if request.node.callspec.id.rpartition(f"{name}-")[2] in AS_TORCH:
        ours, handle = fused()
        trained(ours, handle)
        assert rates(ours) == theirs


def test_tensors_as_milestones_are_never_reached_as_in_torch():
    optimizer = sgd(groups_of([0.5]), lr=0.5)
    scheduler = lr_scheduler.MultiStepLR(optimizer, torch.tensor([1, 2]))
    optimizer.step()
    with pytest.warns(UserWarning, match="milestones has tensors, which torch never reaches"):
        ours, handle = fuse(optimizer, scheduler)
    trained(ours, handle)
    for _ in range(4):
        scheduler.step()
    assert rates(ours) == rates(optimizer) == [0.5]


@pytest.mark.parametrize("given", ["1e-3", b"1", np.str_("1"), Decimal("0.5"), 1j, [0.5, 0.5], {}])
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, row in ARGUMENTS.items() for name in row]
)
def test_what_is_no_number_is_refused_at_construction(kind, name, given):
    value = ARGUMENTS[kind][name]
    if isinstance(value, bool):
        pytest.skip("torch asks only for its truth")
    base = kind.split()[0]
    several = "[" in inspect.signature(getattr(lrfused, base)).parameters[name].annotation
    if several and isinstance(given, list):
        given = ["0.5"]
    with pytest.raises(TypeError, match=rf"{base}\({name}=...\)(\[0\])? must be .*, got") as told:
        schedule_of(kind, {**ARGUMENTS[kind], name: given})
    assert repr(given) in str(told.value) or repr(given[0]) in str(told.value)


@pytest.mark.parametrize("given", ["1e-3", Decimal("0.001")])
def test_what_is_no_number_is_refused_by_fuse(given):
    optimizer = sgd(groups_of([0.5]), lr=0.5)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, min_lr=given)
    with pytest.raises(TypeError, match=r"ReduceLROnPlateau\.\S*min_lr\S* must be one real number"):
        fuse(optimizer, scheduler)
