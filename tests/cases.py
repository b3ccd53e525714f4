"""The tables of cases; tests are products of them."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import lr_scheduler

import lrfused

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
    """Add to a case a rate that no binary fraction equals, where it has none."""
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


def shrinking(epoch: int) -> float:
    return math.sqrt(epoch / (epoch + 0.01)) if epoch else 0.5


def one_or_two(epoch: int) -> int:
    return 2 if epoch % 5 == 1 and epoch < 100 else 1


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

    @property
    def keeps_the_base(self) -> bool:
        """Return whether the initial rate is the user's: a cycle brings its own."""
        return self.kind not in ("OneCycleLR", "CyclicLR") and all(
            m.keeps_the_base for m in self.members
        )

    @property
    def members(self) -> list["Schedule"]:
        return self.kwargs.get("schedulers", [])

    def ours(self) -> Any:
        return getattr(lrfused, self.kind)(**self._with([m.ours() for m in self.members]))

    def torchs(self, optimizer: torch.optim.Optimizer) -> Any:
        with warnings.catch_warnings():  # nested ones step each other before the optimizer has
            warnings.filterwarnings("ignore", "Detected call of")
            kwargs = self._with([m.torchs(optimizer) for m in self.members])
            if self.kind == "ChainedScheduler":
                return lr_scheduler.ChainedScheduler(**kwargs, optimizer=optimizer)
            return getattr(lr_scheduler, self.kind)(optimizer, **kwargs)

    def _with(self, members: list[Any]) -> dict[str, Any]:
        return (
            {**self.kwargs, "schedulers": members} if "schedulers" in self.kwargs else self.kwargs
        )


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
    *_table(
        "ConstantLR",
        default={},
        never={"factor": 0.7, "total_iters": 0},
        long={"factor": 0.3, "total_iters": 77},
        one={"factor": 1.0},
    ),
    *_table(
        "LinearLR",
        default={},
        warmup={"start_factor": 0.001, "total_iters": 100},
        falling={"start_factor": 1.0, "end_factor": 0.0, "total_iters": 90},
        long={"start_factor": 0.3, "end_factor": 0.9, "total_iters": 1_100},
        never={"total_iters": 0},
    ),
    *_table(
        "PolynomialLR",
        default={},
        square={"total_iters": 60, "power": 2.0},
        root={"total_iters": 1_099, "power": 0.5},
        flat={"total_iters": 9, "power": 0.0},
    ),
    *_table(
        "MultiplicativeLR",
        root={"lr_lambda": shrinking},
        ints={"lr_lambda": one_or_two},
        object={"lr_lambda": Wave(2.3)},
    ),
    *_table(
        "CosineAnnealingWarmRestarts",
        ten={"T_0": 10},
        doubling={"T_0": 7, "T_mult": 2, "eta_min": 1e-3},
        one={"T_0": 1},
        tripling={"T_0": 50, "T_mult": 3, "eta_min": 0.2},
    ),
    *_table(
        "CyclicLR",
        default={"base_lr": 0.01, "max_lr": 0.1},
        triangular={"base_lr": 0.01, "max_lr": 0.3, "step_size_up": 13, "step_size_down": 29},
        halving={"base_lr": 0, "max_lr": 1, "step_size_up": 17, "mode": "triangular2"},
        fading={
            "base_lr": 0.02,
            "max_lr": 0.3,
            "step_size_up": 11,
            "mode": "exp_range",
            "gamma": 0.997,
            "base_momentum": 0.7,
            "max_momentum": 0.99,
        },
        custom={
            "base_lr": 0.01,
            "max_lr": 0.5,
            "step_size_up": 9,
            "scale_fn": inverse_root,
            "scale_mode": "iterations",
            "cycle_momentum": False,
        },
        object={"base_lr": 0.01, "max_lr": 0.5, "step_size_up": 5, "scale_fn": Wave(4.0)},
    ),
    *_table(
        "OneCycleLR",
        default={"max_lr": 0.1, "total_steps": 40_000},
        epochs={"max_lr": 0.3, "epochs": 13, "steps_per_epoch": 101},
        linear={"max_lr": 1, "total_steps": 1_301, "anneal_strategy": "linear"},
        three={
            "max_lr": 0.2,
            "total_steps": 1_401,
            "three_phase": True,
            "pct_start": 0.21,
            "div_factor": 7,
            "final_div_factor": 1e3,
        },
        still={"max_lr": 0.2, "total_steps": 1_350, "cycle_momentum": False},
        early={"max_lr": 0.2, "total_steps": 1_350, "pct_start": 0.0},
        late={"max_lr": 0.2, "total_steps": 1_350, "pct_start": 1.0},
    ),
    Schedule(
        "OneCycleLR-lists",
        "OneCycleLR",
        {"max_lr": [0.1, 0.7], "total_steps": 1_399, "base_momentum": [0.8, 0.3]},
        groups=2,
    ),
    Schedule(
        "CyclicLR-lists",
        "CyclicLR",
        {"base_lr": [0.1, 0.02], "max_lr": [0.2, 0.7], "step_size_up": 19},
        groups=2,
    ),
    Schedule(
        "MultiplicativeLR-list", "MultiplicativeLR", {"lr_lambda": [shrinking, Wave(3.3)]}, groups=2
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


def named(*names: str) -> list[Schedule]:
    """Look schedules up by name."""
    by_name = {case.name: case for case in SCHEDULES}
    return [by_name[name] for name in names]


def sequential(name: str, milestones: list[int], *members: str) -> Schedule:
    kwargs = {"schedulers": named(*members), "milestones": milestones}
    return Schedule(f"SequentialLR-{name}", "SequentialLR", kwargs)


def chained(name: str, *members: str) -> Schedule:
    return Schedule(f"ChainedScheduler-{name}", "ChainedScheduler", {"schedulers": named(*members)})


# In order of depth, for `named` finds what stands before.
SCHEDULES += [
    sequential("warmup-cosine", [10], "LinearLR-default", "CosineAnnealingLR-ten"),
    sequential(
        "all", [3, 9, 40, 90, 150, 210, 300, 400],
        "ConstantLR-default", "ExponentialLR-usual", "StepLR-third", "PolynomialLR-square",
        "MultiStepLR-twice", "LambdaLR-root", "MultiplicativeLR-object",
        "CosineAnnealingWarmRestarts-doubling", "LinearLR-falling",
    ),
    sequential("cycles", [50, 100], "CyclicLR-triangular", "OneCycleLR-three", "CyclicLR-object"),
    sequential("alone", [], "ExponentialLR-usual"),
    sequential(
        "skips", [5, 5, 9],
        "StepLR-each", "LinearLR-default", "ConstantLR-long", "CosineAnnealingLR-floor",
    ),
    sequential("at-once", [0, 7], "StepLR-each", "LinearLR-default", "ExponentialLR-slow"),
    sequential("beyond-the-window", [1_030], "CosineAnnealingLR-odd", "ExponentialLR-usual"),
    chained("one", "ExponentialLR-usual"),
    chained("relative", "ConstantLR-default", "ExponentialLR-slow", "CosineAnnealingLR-floor"),
    chained("absolute", "StepLR-third", "CyclicLR-halving", "MultiStepLR-twice"),
]  # fmt: skip
SCHEDULES += [
    sequential(
        "of-a-sequence", [17, 30], "SequentialLR-warmup-cosine", "ConstantLR-long", "StepLR-third"
    ),
    sequential("of-a-chain", [17], "ChainedScheduler-relative", "ExponentialLR-usual"),
    chained("of-both", "SequentialLR-skips", "ChainedScheduler-relative", "ExponentialLR-slow"),
]
SCHEDULES += [
    sequential("of-depth", [23], "ChainedScheduler-of-both", "PolynomialLR-square"),
    chained("of-depth", "SequentialLR-of-a-sequence", "SequentialLR-of-a-chain"),
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
    """Make a lambda that raises beyond its last epoch."""
    table: Sequence[float] = [1 / (2 + epoch) for epoch in range(last + 1)]
    return lambda epoch: table[epoch]
