"""The tables of which the tests are products."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import lr_scheduler

import lrfused

BACKENDS = ["compiled", "reference", "triton"]
# The files whose tests run on Triton too: those about tensors. The schedule on a device has tests
# of its own; test_amp's scaler is the CPU's.
ON_GPU = ["test_layouts", "test_refusals", "test_swaps", "test_update"]
ON_TRITON = [*ON_GPU, "test_amp"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
TORCH_IS_ORACLE = (torch.float32, torch.float64)
SIZES = [0, 1, 7, 8, 9, 31, 33, 1023, 1024, 1025, 65537]

HYPER: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay": {"weight_decay": 0.01},
    "momentum": {"momentum": 0.9},
    "momentum-decay": {"momentum": 0.9, "weight_decay": 5e-4},
    "dampening": {"momentum": 0.9, "dampening": 0.1},
    "dampening-one": {"momentum": 0.7, "dampening": 1.0, "weight_decay": 0.03},
    "dampening-negative": {"momentum": 0.3, "dampening": -0.37},
    "dampening-alone": {"dampening": 0.5},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "nesterov-decay": {"momentum": 0.95, "nesterov": True, "weight_decay": 0.1},
    "maximize": {"maximize": True},
    "maximize-decay": {"maximize": True, "weight_decay": 0.07},
    "maximize-all": {"maximize": True, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
    "maximize-nesterov": {"maximize": True, "momentum": 0.8, "nesterov": True},
    "maximize-nesterov-decay": {
        "maximize": True,
        "momentum": 0.8,
        "nesterov": True,
        "weight_decay": 0.02,
    },
    "rate-zero": {"lr": 0.0, "momentum": 0.9},
    "rate-int": {"lr": 2, "momentum": 1, "dampening": 0, "weight_decay": 1},
    "large": {"lr": 7.3, "momentum": 1.7, "dampening": -1.3, "weight_decay": 3.1},
    "tiny": {"lr": 1e-30, "momentum": 1e-20, "weight_decay": 1e-25},
}


def with_lr(hyper: dict[str, Any]) -> dict[str, Any]:
    """Give a case a rate that no binary fraction equals, where it has none."""
    return {"lr": 0.1, **hyper}


# Lambdas. They are module-level: a checkpoint and a pickle must be able to name them.
def fading(epoch: int) -> float:
    return 0.95**epoch


def warmup(epoch: int) -> float:
    return min(1.0, (epoch + 1) / 17)


def inverse_root(epoch: int) -> float:
    return 1 / math.sqrt(1 + epoch)


def whole(epoch: int) -> int:
    return epoch % 3


class Wave:
    """A callable with state of its own, which torch keeps in the scheduler's state_dict."""

    def __init__(self, width: float) -> None:
        self.width = width

    def __call__(self, epoch: int) -> float:
        return 1.1 + math.sin(epoch / self.width)


@dataclass(frozen=True)
class Schedule:
    """One schedule by name, to be built as lrfused's or as torch's."""

    name: str
    kind: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    groups: int | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def is_plateau(self) -> bool:
        return self.kind == "ReduceLROnPlateau"

    def ours(self) -> Any:
        return getattr(lrfused, self.kind)(**self.kwargs)

    def torchs(self, optimizer: torch.optim.Optimizer) -> Any:
        return getattr(lr_scheduler, self.kind)(optimizer, **self.kwargs)


def _table(kind: str, **rows: dict[str, Any]) -> list[Schedule]:
    return [Schedule(f"{kind}-{name}", kind, kwargs) for name, kwargs in rows.items()]


SCHEDULES: list[Schedule] = [
    *_table(
        "StepLR",
        default={"step_size": 30},
        each={"step_size": 1, "gamma": 0.5},
        third={"step_size": 7, "gamma": 0.3},
        growing={"step_size": 4, "gamma": 1.5},
        zero={"step_size": 11, "gamma": 0.0},
        negative={"step_size": 5, "gamma": -0.9},
        never={"step_size": 10**9, "gamma": 0.1},
    ),
    *_table(
        "MultiStepLR",
        default={"milestones": [30, 80]},
        twice={"milestones": [5, 5, 9], "gamma": 0.3},
        many={"milestones": [3] * 400 + [20], "gamma": 0.1},
        unsorted={"milestones": (80, 30, 31), "gamma": 0.7},
        empty={"milestones": []},
        at_zero={"milestones": [0, 2], "gamma": 0.7},
    ),
    *_table(
        "ExponentialLR",
        usual={"gamma": 0.9},
        slow={"gamma": 0.9991},
        subnormal={"gamma": 0.49},
        one={"gamma": 1.0},
        zero={"gamma": 0.0},
        growing={"gamma": 1.01},
    ),
    *_table(
        "CosineAnnealingLR",
        ten={"T_max": 10},
        floor={"T_max": 50, "eta_min": 1e-3},
        long={"T_max": 2000},
        odd={"T_max": 333, "eta_min": 0.0123},
        climbing={"T_max": 21, "eta_min": 0.3},
        negative={"T_max": 13, "eta_min": -0.01},
        one={"T_max": 1, "eta_min": 0.01},
        two={"T_max": 2},
    ),
    *_table(
        "LambdaLR",
        fading={"lr_lambda": fading},
        warmup={"lr_lambda": warmup},
        root={"lr_lambda": inverse_root},
        ints={"lr_lambda": whole},
        object={"lr_lambda": Wave(3.7)},
    ),
    Schedule("LambdaLR-list", "LambdaLR", {"lr_lambda": [fading, Wave(5.1)]}, groups=2),
    *_table(
        "ReduceLROnPlateau",
        default={},
        hasty={"patience": 0, "factor": 0.5},
        best={"mode": "max", "patience": 1, "factor": 0.7, "threshold": 0.05},
        abs={"threshold_mode": "abs", "threshold": 0.1, "patience": 2, "factor": 0.3},
        max_abs={"mode": "max", "threshold_mode": "abs", "threshold": 0.02, "patience": 1},
        cooldown={"patience": 1, "cooldown": 3, "factor": 0.6},
        max_cooldown={"mode": "max", "patience": 0, "cooldown": 1, "factor": 0.9},
        floor={"patience": 0, "min_lr": 0.02, "factor": 0.5},
        coarse={"patience": 0, "eps": 0.01, "factor": 0.5},
        zero={"patience": 3, "factor": 0.0},
        loose={"patience": 0, "threshold": 0.5, "factor": 0.8},
        hasty_cooldown={"patience": 0, "factor": 0.9, "cooldown": 2},
    ),
    Schedule(
        "ReduceLROnPlateau-floors",
        "ReduceLROnPlateau",
        {"patience": 0, "min_lr": [0.03, 0.2], "factor": 0.5},
        groups=2,
    ),
]

STEPPED = [case for case in SCHEDULES if not case.is_plateau]
PLATEAUS = [case for case in SCHEDULES if case.is_plateau]

# A torch scheduler built with last_epoch = n has seen epoch n + 1 when its constructor returns.
RESUMED: list[Schedule] = [
    Schedule("StepLR-plain", "StepLR", {"step_size": 4, "gamma": 0.3, "last_epoch": 5}),
    Schedule("StepLR-on-a-step", "StepLR", {"step_size": 3, "gamma": 0.3, "last_epoch": 5}),
    Schedule("StepLR-zero", "StepLR", {"step_size": 3, "gamma": 0.3, "last_epoch": 0}),
    Schedule("MultiStepLR", "MultiStepLR", {"milestones": [6, 9, 9], "last_epoch": 5}),
    Schedule("ExponentialLR", "ExponentialLR", {"gamma": 0.9, "last_epoch": 5}),
    Schedule("CosineAnnealingLR", "CosineAnnealingLR", {"T_max": 9, "last_epoch": 5}),
    Schedule("CosineAnnealingLR-top", "CosineAnnealingLR", {"T_max": 5, "last_epoch": 5}),
    Schedule("LambdaLR", "LambdaLR", {"lr_lambda": fading, "last_epoch": 5}),
]


def named(*names: str) -> list[Schedule]:
    """Look schedules up by name."""
    by_name = {case.name: case for case in SCHEDULES}
    return [by_name[name] for name in names]


# Chained in order. An absolute member (Lambda) overwrites what came before it.
COMPOSITIONS: dict[str, list[Schedule]] = {
    "step-exponential": named("StepLR-third", "ExponentialLR-slow"),
    "lambda-step": named("LambdaLR-fading", "StepLR-third"),
    "step-lambda": named("StepLR-third", "LambdaLR-warmup"),
    "lambda-lambda": named("LambdaLR-fading", "LambdaLR-object"),
    "multistep-cosine-exponential": named(
        "MultiStepLR-twice", "CosineAnnealingLR-floor", "ExponentialLR-slow"
    ),
    "cosine-cosine": named("CosineAnnealingLR-ten", "CosineAnnealingLR-odd"),
    "cosine-lambda-cosine": named(
        "CosineAnnealingLR-floor", "LambdaLR-root", "CosineAnnealingLR-odd"
    ),
    "step-step-step": named("StepLR-default", "StepLR-third", "StepLR-growing"),
    "at-zero-twice": named("MultiStepLR-at_zero", "MultiStepLR-at_zero", "ExponentialLR-usual"),
    "one": named("ExponentialLR-usual"),
}

# Beside a plateau, which is fed apart from the others.
WITH_PLATEAU: dict[str, list[Schedule]] = {
    "exponential-plateau": named("ExponentialLR-slow", "ReduceLROnPlateau-hasty"),
    "plateau-step": named("ReduceLROnPlateau-cooldown", "StepLR-third"),
    "plateau-lambda": named("ReduceLROnPlateau-hasty", "LambdaLR-fading"),
    "cosine-plateau-multistep": named(
        "CosineAnnealingLR-odd", "ReduceLROnPlateau-best", "MultiStepLR-twice"
    ),
    "two-plateaus": named("ReduceLROnPlateau-hasty", "ReduceLROnPlateau-abs"),
}


def lambda_that_ends(last: int) -> Callable[[int], float]:
    """Make a lambda that knows no epoch beyond its last."""
    table: Sequence[float] = [1 / (2 + epoch) for epoch in range(last + 1)]
    return lambda epoch: table[epoch]
