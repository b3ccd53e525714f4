"""Numbers of numpy, torch and Python as arguments: plain at the door, and in every checkpoint."""

import copy
import inspect
import io
import math
import re
import sys
import warnings
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import numpy as np
import pytest
import torch
from support.loops import groups_of
from support.twin import rates, sgd
from torch.optim import lr_scheduler

import lrfused
from lrfused import FusedDecaySGD, fuse


class Three(IntEnum):
    THREE = 3


INTEGERS = {
    "np.int64": np.int64,
    "np.uint8": np.uint8,
    "np.array": np.array,
    "np.array-one": lambda n: np.array([n]),
    "tensor": torch.tensor,
    "tensor-one": lambda n: torch.tensor([n], dtype=torch.int32),
    "Fraction": Fraction,
    "int": int,
    "enum": lambda n: Three.THREE if n == 3 else n,
}
REALS = {
    "np.float64": np.float64,
    "np.float32": np.float32,
    "np.float16": np.float16,
    "np.longdouble": np.longdouble,
    "np.array": np.array,
    "np.array-object": lambda x: np.array(Fraction(x), dtype=object),
    "tensor": torch.tensor,
    "tensor-double": lambda x: torch.tensor(x, dtype=torch.float64),
    "tensor-bfloat16": lambda x: torch.tensor(x, dtype=torch.bfloat16),
    "tensor-grad": lambda x: torch.tensor(x, requires_grad=True),
    "tensor-one": lambda x: torch.tensor([x]),
    "Fraction": Fraction,
    "float": float,
}
SEVERAL = {
    "np.array": np.array,
    "np.array-float32": lambda v: np.array(v, dtype=np.float32),
    "list-of-numpy": lambda v: [np.float64(x) for x in v],
    "tensor": torch.tensor,
    "list-of-tensors": lambda v: [torch.tensor(x) for x in v],
    "tuple": tuple,
}
FLAGS = {"np.bool": np.bool_, "np.array": np.array, "tensor": torch.tensor}

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


def kinds_of(value):
    if isinstance(value, bool):
        return FLAGS
    if isinstance(value, list):
        return SEVERAL
    return INTEGERS if isinstance(value, int) else REALS


def products(table):
    return [
        pytest.param(kind, name, convert, id=f"{kind}-{name}-{of}")
        for kind, numbers in table.items()
        for name, value in numbers.items()
        for of, convert in kinds_of(value).items()
    ]


def schedule_of(kind, given):
    name = kind.split()[0]
    if name == "warmup":
        return lrfused.warmup(lrfused.StepLR(2), **given)
    return getattr(lrfused, name)(**given, **OTHERS.get(name, {}))


def optimizer_of(schedule):
    return FusedDecaySGD(groups_of([0.5, 0.25], momentum=0.5), schedule=schedule)


def trained(optimizer, handle, steps=4):
    seen = []
    for step in range(steps):
        optimizer.step()
        if handle is not None:
            handle.step()
        elif optimizer._internals.rates.plateaus:
            optimizer.scheduler.step(1.0 + step)
        seen.append([(g["lr"], g["momentum"]) for g in optimizer.param_groups])
    return seen


def reloaded(state):
    """Save and load a checkpoint as a careful program does."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_loads_its_own(make):
    """Save after some steps, load into a new one, and go on as the first does."""
    first, handle = make()
    trained(first, handle)
    saved, own = reloaded(first.state_dict()), reloaded(first.scheduler.state_dict())
    second, other = make()
    second.load_state_dict(copy.deepcopy(saved))
    second.scheduler.load_state_dict(own)
    assert trained(first, handle) == trained(second, other)


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


# -- the optimizer's own -------------------------------------------------------------------------

HYPER = {"lr": 0.5, "momentum": 0.25, "dampening": 0.0, "weight_decay": 0.125}
HYPERS = products({"hyper": {**HYPER, "nesterov": True, "maximize": True}})


@pytest.mark.parametrize(("kind", "name", "convert"), HYPERS)
def test_settings_are_plain_wherever_they_are_given(kind, name, convert):
    plain = {**HYPER, "nesterov": True, "maximize": True}
    given = {**plain, name: convert(plain[name])}

    def make():
        optimizer = FusedDecaySGD(
            groups_of([0.5, 0.5], **{name: convert(plain[name])}),
            **given,
            schedule=lrfused.StepLR(2),
        )
        optimizer.add_param_group(groups_of([0.5], **{name: convert(plain[name])})[0])
        return optimizer, None

    optimizer = make()[0]
    for group in [optimizer.defaults, *optimizer.param_groups]:
        assert type(group[name]) in (bool, int, float)
        assert group[name] == plain[name]
    optimizer.param_groups[0][name] = convert(plain[name])  # written later
    for group in reloaded(optimizer.state_dict())["param_groups"]:
        assert type(group[name]) in (bool, int, float)
    assert_loads_its_own(make)


@pytest.mark.parametrize("name", HYPER)
@pytest.mark.parametrize("given", ["0.1", Decimal("0.1"), 1j, None])
def test_a_setting_that_is_no_number_is_refused_at_construction(name, given):
    with pytest.raises(TypeError, match=f"{name} must be one real number, got"):
        FusedDecaySGD(groups_of([0.5]), **{**HYPER, name: given})
    own = rf"param_groups\[0\]\['{name}'\] must be one real number, got"
    with pytest.raises(TypeError, match=own):
        FusedDecaySGD([{**groups_of([0.5])[0], name: given}])
    optimizer = FusedDecaySGD(groups_of([0.5]))
    with pytest.raises(TypeError, match=own.replace("0", "1", 1)):
        optimizer.add_param_group({**groups_of([0.5])[0], name: given})
    assert len(optimizer.param_groups) == 1


def test_checkpoints_with_numpy_numbers_load():
    ours = FusedDecaySGD(groups_of([0.5, 0.25]), schedule=lrfused.CyclicLR(0.125, 0.5, 3))
    trained(ours, None)
    saved = copy.deepcopy(ours.state_dict())
    for group in saved["param_groups"]:
        group.update(lr=np.float64(group["lr"]), momentum=np.float32(0.5), nesterov=np.False_)
        for state in group["schedule"]["schedulers"]:
            state["base_lrs"] = np.array(state["base_lrs"])
            state["max_lrs"] = torch.tensor(state["max_lrs"])
            state["last_epoch"] = np.int64(state["last_epoch"])
    fresh = FusedDecaySGD(groups_of([0.5, 0.25]), schedule=lrfused.CyclicLR(0.125, 0.5, 3))
    fresh.load_state_dict(saved)
    assert reloaded(fresh.state_dict())["param_groups"] == fresh.state_dict()["param_groups"]
    with_plain = [group["lr"] for group in fresh.param_groups]
    assert with_plain == rates(ours)


def test_integers_are_integers_whoever_made_them():
    for three in (np.int64(3), np.array(3), torch.tensor(3), Three.THREE, Fraction(3)):
        ours = FusedDecaySGD(groups_of([0.5]), schedule=lrfused.StepLR(1), schedule_every=three)
        for _ in range(3):
            ours.step()
        assert rates(ours) == [0.05]

        class Unknown(lr_scheduler.LRScheduler):
            def get_lr(self):
                return [base / (1 + self.last_epoch) for base in self.base_lrs]

        optimizer = sgd(groups_of([0.5]), lr=0.5)
        fused, handle = fuse(optimizer, Unknown(optimizer), total_steps=three)
        trained(fused, handle, steps=3)
        with pytest.raises(ValueError, match="total_steps=3"):
            handle.step()


# -- never ---------------------------------------------------------------------------------------

ENDLESS = {
    "StepLR": lambda kind, opt, n: kind.StepLR(*opt, n),
    "MultiStepLR": lambda kind, opt, n: kind.MultiStepLR(*opt, [7, n, n]),
    "ConstantLR": lambda kind, opt, n: kind.ConstantLR(*opt, 0.5, n),
    "LinearLR": lambda kind, opt, n: kind.LinearLR(*opt, 0.5, 1.0, n),
    "PolynomialLR": lambda kind, opt, n: kind.PolynomialLR(*opt, n),
    "CosineAnnealingLR": lambda kind, opt, n: kind.CosineAnnealingLR(*opt, n, 0.01),
    "CosineAnnealingWarmRestarts": lambda k, opt, n: k.CosineAnnealingWarmRestarts(*opt, n),
    "T_mult": lambda kind, opt, n: kind.CosineAnnealingWarmRestarts(*opt, 7, n),
    "OneCycleLR": lambda kind, opt, n: kind.OneCycleLR(*opt, 0.5, n),
    "CyclicLR": lambda kind, opt, n: kind.CyclicLR(*opt, 0.1, 0.5, n, cycle_momentum=False),
    "CyclicLR-down": lambda kind, opt, n: kind.CyclicLR(*opt, 0.1, 0.5, 7, n, cycle_momentum=False),
    "patience": lambda kind, opt, n: kind.ReduceLROnPlateau(*opt, patience=n),
    "cooldown": lambda kind, opt, n: kind.ReduceLROnPlateau(*opt, patience=1, cooldown=n),
    "SequentialLR": lambda kind, opt, n: kind.SequentialLR(
        *opt, [kind.ExponentialLR(*opt, 0.99), kind.StepLR(*opt, 3)], [n]
    ),
    "SequentialLR-later": lambda kind, opt, n: kind.SequentialLR(
        *opt, [kind.StepLR(*opt, 3), kind.ConstantLR(*opt, 0.5, n)], [5]
    ),
}


@pytest.mark.parametrize("never", [math.inf, sys.maxsize, 2**62, 2**70, float(2**63)], ids=str)
@pytest.mark.parametrize("kind", ENDLESS)
def test_infinity_and_huge_numbers_mean_never(kind, never):
    theirs = sgd(groups_of([0.5]), lr=0.5)
    try:
        scheduler = ENDLESS[kind](lr_scheduler, [theirs], never)
    except (ValueError, ZeroDivisionError):
        with pytest.raises(ValueError, match=r"must|Expected"):
            optimizer_of(ENDLESS[kind](lrfused, [], never))
        return
    if kind == "CyclicLR" and never == math.inf:  # NaN in torch
        with pytest.raises(ValueError, match=r"step_size_up=...\) must be above 0 and finite"):
            ENDLESS[kind](lrfused, [], never)
        return

    def make():
        return FusedDecaySGD(groups_of([0.5]), lr=0.5, schedule=ENDLESS[kind](lrfused, [], never))

    ours = make()
    watched = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
    opt = sgd(groups_of([0.5]), lr=0.5)
    fused, handle = fuse(opt, ENDLESS[kind](lr_scheduler, [opt], never))
    metric = [1.0] if watched else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(3000):
            if step == 1500:
                saved = reloaded(ours.state_dict())
                ours = make()
                ours.load_state_dict(saved)
            theirs.step()
            scheduler.step(*metric)
            fused.step()
            handle.step(*metric)
            ours.step()
            if watched:
                ours.scheduler.step(1.0)
            assert rates(ours) == rates(fused) == rates(theirs), step
    reloaded(ours.state_dict())


def test_a_cooldown_counts_down_from_any_number():
    def make():
        plateau = lrfused.ReduceLROnPlateau(factor=0.5, patience=0, cooldown=2.5)
        return FusedDecaySGD(groups_of([0.5]), schedule=plateau)

    theirs = sgd(groups_of([0.5]), lr=0.5)
    scheduler = lr_scheduler.ReduceLROnPlateau(theirs, factor=0.5, patience=0, cooldown=2.5)
    ours = make()
    for _ in range(20):
        scheduler.step(1.0)
        ours.scheduler.step(1.0)
        saved = reloaded(ours.state_dict())
        ours = make()
        ours.load_state_dict(saved)
        assert rates(ours) == rates(theirs)
        assert ours.scheduler.state_dict()["cooldown_counter"] == scheduler.cooldown_counter


def test_a_number_of_steps_is_not_nan():
    with pytest.raises(ValueError, match=r"LinearLR\(total_iters=...\) must be a number of steps"):
        lrfused.LinearLR(total_iters=math.nan)


def test_a_setting_of_nan_equals_itself_in_a_checkpoint():
    ours = optimizer_of(lrfused.CosineAnnealingLR(3, math.nan))
    fresh = optimizer_of(lrfused.CosineAnnealingLR(3, math.nan))
    fresh.load_state_dict(reloaded(ours.state_dict()))
