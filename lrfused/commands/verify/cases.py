"""The tables of cases: hyper-parameters, sizes, special values and schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import lr_scheduler

import lrfused

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SIZES = (0, 1, 7, 8, 9, 31, 33, 1023, 1025, 65537)
MISALIGNED = 1025  # elements of a view that begins in the middle of a vector
SPECIAL = (0.0, -0.0, 1.0, math.inf, -math.inf, math.nan)

HYPER: dict[str, dict[str, Any]] = {
    "plain": {"lr": 0.1},
    "decay": {"lr": 0.1, "weight_decay": 0.01},
    "momentum": {"lr": 0.1, "momentum": 0.9},
    "momentum-decay": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "dampening": {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.03},
    "dampening-negative": {"lr": 0.1, "momentum": 0.3, "dampening": -0.37},
    "nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "nesterov-decay": {"lr": 0.1, "momentum": 0.95, "nesterov": True, "weight_decay": 0.1},
    "maximize": {"lr": 0.1, "maximize": True},
    "maximize-all": {
        "lr": 0.1, "maximize": True, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01
    },
    "maximize-nesterov": {
        "lr": 0.1, "maximize": True, "momentum": 0.8, "nesterov": True, "weight_decay": 0.02
    },
    "rate-zero": {"lr": 0.0, "momentum": 0.9},
    "large": {"lr": 7.3, "momentum": 1.7, "dampening": -1.3, "weight_decay": 3.1},
    "tiny": {"lr": 1e-30, "momentum": 1e-20, "weight_decay": 1e-25},
}  # fmt: skip


def fading(epoch: int) -> float:
    """Return a factor that falls with each epoch."""
    return 0.995**epoch


def waving(epoch: float) -> float:
    """Return a factor that rises and falls."""
    return 1.1 + math.sin(epoch / 3.7)


@dataclass(frozen=True)
class Rule:
    """Make one schedule twice: as lrfused's, and as torch's without lrfused."""

    kind: str
    arguments: dict[str, Any]
    name: str = ""

    @property
    def is_plateau(self) -> bool:
        """Return whether it is fed a metric, and not stepped."""
        return self.kind == "ReduceLROnPlateau"

    def ours(self) -> lrfused.Schedule:
        """Return lrfused's schedule: of the class `kind`, or made by the recipe `name`."""
        if self.name:
            return getattr(lrfused, self.name)(**self.arguments)
        return getattr(lrfused, self.kind)(**self._made([rule.ours() for rule in self._members]))

    def torchs(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return torch's scheduler, on an optimizer."""
        if self.name:  # a recipe returns a schedule of torch's classes
            return _of_recipe(self.ours(), optimizer)
        arguments = self._made([rule.torchs(optimizer) for rule in self._members])
        if self.kind == "ChainedScheduler":
            return lr_scheduler.ChainedScheduler(**arguments, optimizer=optimizer)
        return getattr(lr_scheduler, self.kind)(optimizer, **arguments)

    @property
    def _members(self) -> list[Rule]:
        return self.arguments.get("schedulers", [])

    def _made(self, members: list[Any]) -> dict[str, Any]:
        return {**self.arguments, "schedulers": members} if self._members else self.arguments


def _of_recipe(schedule: Any, optimizer: torch.optim.Optimizer) -> Any:
    if isinstance(schedule, lrfused.SequentialLR):
        members = [_of_recipe(member, optimizer) for member in schedule.schedulers]
        return lr_scheduler.SequentialLR(optimizer, members, schedule.milestones)
    return getattr(lr_scheduler, type(schedule).__name__)(optimizer, **schedule.arguments)


def rule(kind: str, **arguments: Any) -> Rule:
    """Return the rule of one of torch's schedules."""
    return Rule(kind, arguments)


def recipe(name: str, **arguments: Any) -> Rule:
    """Return the rule of one of lrfused's recipes."""
    return Rule(name, arguments, name=name)


_COSINE = rule("CosineAnnealingLR", T_max=333, eta_min=0.0123)
_EXPONENTIAL = rule("ExponentialLR", gamma=0.9991)
_STEP = rule("StepLR", step_size=7, gamma=0.97)
_LINEAR = rule("LinearLR", start_factor=0.01, total_iters=100)
_WARM_UP = rule("SequentialLR", schedulers=[_LINEAR, _COSINE], milestones=[100])
_CHAIN = rule(
    "ChainedScheduler",
    schedulers=[rule("ConstantLR", factor=0.3, total_iters=77), _EXPONENTIAL, _COSINE],
)
_PLATEAU = rule("ReduceLROnPlateau", patience=1, factor=0.9)

# Each is a list of schedules, applied in order.
SCHEDULES: list[list[Rule]] = [
    [rule("StepLR", step_size=30)],
    [_STEP],
    [rule("MultiStepLR", milestones=[30, 80, 80, 900], gamma=0.3)],
    [rule("ConstantLR", factor=0.3, total_iters=77)],
    [_LINEAR],
    [rule("LinearLR", start_factor=1.0, end_factor=0.1, total_iters=1_050)],
    [_EXPONENTIAL],
    [rule("PolynomialLR", total_iters=1_060, power=0.9)],
    [rule("CosineAnnealingLR", T_max=10)],
    [_COSINE],
    [rule("CosineAnnealingLR", T_max=20_000)],
    [rule("LambdaLR", lr_lambda=fading)],
    [rule("MultiplicativeLR", lr_lambda=lambda epoch: math.sqrt(epoch / (epoch + 0.01)))],
    [rule("CosineAnnealingWarmRestarts", T_0=10)],
    [rule("CosineAnnealingWarmRestarts", T_0=7, T_mult=2, eta_min=1e-3)],
    [rule("CyclicLR", base_lr=0.01, max_lr=0.3, step_size_up=13, step_size_down=29)],
    [rule("CyclicLR", base_lr=0, max_lr=1, step_size_up=17, mode="triangular2")],
    [rule("CyclicLR", base_lr=0.02, max_lr=0.3, step_size_up=11, mode="exp_range", gamma=0.997)],
    [rule("CyclicLR", base_lr=0.01, max_lr=0.5, step_size_up=9, scale_fn=waving)],
    [rule("OneCycleLR", max_lr=0.1, total_steps=40_000)],
    [rule("OneCycleLR", max_lr=1.0, total_steps=4_001, anneal_strategy="linear")],
    [rule("OneCycleLR", max_lr=0.2, total_steps=4_001, three_phase=True, pct_start=0.1)],
    [_PLATEAU],
    [rule("ReduceLROnPlateau", mode="max", patience=0, cooldown=1, factor=0.97)],
    [rule("ReduceLROnPlateau", threshold_mode="abs", threshold=0.1, min_lr=0.02, factor=0.5)],
    [_WARM_UP],
    [
        rule(
            "SequentialLR",
            schedulers=[_STEP, rule("OneCycleLR", max_lr=0.2, total_steps=4_000), _EXPONENTIAL],
            milestones=[50, 1_030],
        )
    ],
    [_CHAIN],
    [rule("SequentialLR", schedulers=[_CHAIN, _EXPONENTIAL], milestones=[170])],
    [rule("ChainedScheduler", schedulers=[_WARM_UP, _STEP])],
    [_EXPONENTIAL, _COSINE, _STEP],
    [_COSINE, _PLATEAU, _STEP],
    [recipe("warmup", schedule=lrfused.CosineAnnealingLR(300), steps=20)],
    [recipe("cosine_with_warmup", total_steps=900, warmup_steps=50, floor=0.1)],
    [recipe("warmup_stable_decay", total_steps=900, warmup_steps=50, decay_steps=200)],
    [recipe("inverse_sqrt", warmup_steps=40)],
]


def title(rules: list[Rule]) -> str:
    """Return the name of a schedule in the tables."""
    return rules[0].kind if len(rules) == 1 else f"list of {len(rules)}"
