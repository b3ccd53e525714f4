"""Run FusedDecaySGD beside its oracle, and count the values that differ."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...arithmetic import bits
from ...optimizer import FusedDecaySGD
from ...reference import ReferenceDecaySGD
from . import cases

MOMENTUM = "momentum_buffer"
WITH_GRADIENTS = 40  # steps
MOVED = ("lr", "momentum")  # the entries of a group that a schedule moves


@dataclass
class Findings:
    """Count the values compared, and keep the place of the first difference."""

    cases: int = 0
    steps: int = 0
    values: int = 0
    differing: int = 0
    first: str = ""

    def note(self, values: int, differing: int, where: str) -> None:
        """Add a comparison; `where` is kept if it is the first to find a difference."""
        self.values += values
        self.differing += differing
        if differing and not self.first:
            self.first = where

    def add(self, other: Findings) -> None:
        """Add the findings of another case."""
        self.cases += other.cases
        self.steps += other.steps
        self.note(other.values, other.differing, other.first)


@dataclass(frozen=True)
class Tensors:
    """Hold the parameters of a dtype on a device, and their gradients for each step."""

    names: list[str]
    params: list[Tensor]
    grads: list[list[Tensor]]

    @classmethod
    def draw(cls, dtype: torch.dtype, device: torch.device, steps: int) -> Tensors:
        """Draw numbers over some powers of two for every size, and pair up the special values."""
        names = [f"{size:,} elements" for size in cases.SIZES]
        names += [f"{cases.MISALIGNED:,} misaligned elements", "special values"]

        def numbers(seed: int) -> list[Tensor]:
            generator = torch.Generator().manual_seed(seed)
            drawn = []
            for size in (*cases.SIZES, cases.MISALIGNED):
                values = torch.randn(size, dtype=torch.float64, generator=generator)
                values *= 2.0 ** torch.randint(-5, 3, (size,), generator=generator)
                drawn.append(values.to(device, dtype))
            drawn[-1] = _misaligned(drawn[-1])
            return drawn

        limits = torch.finfo(dtype)
        extremes = [limits.max, limits.tiny, limits.tiny / 2]  # the last is subnormal
        special = torch.tensor([*cases.SPECIAL, *extremes], dtype=dtype, device=device)
        count = len(special)
        grads = [[*numbers(1 + step), special.repeat(count).roll(step)] for step in range(steps)]
        return cls(names, [*numbers(0), special.repeat_interleave(count)], grads)


def _misaligned(tensor: Tensor) -> Tensor:
    """Copy a tensor to an address that is not aligned for vectors."""
    return torch.cat([tensor[:1], tensor])[1:]


def _copy(tensor: Tensor) -> Tensor:
    return _misaligned(tensor) if tensor.storage_offset() else tensor.clone()


def oracle(params: Any, dtype: torch.dtype, device: torch.device, **hyper: Any) -> Any:
    """Return the oracle: torch's for-loop, or for bf16 and fp16 on a CPU the reference.

    torch's own bf16 or fp16 result on a CPU depends on where in a SIMD block an element falls.
    """
    if device.type == "cpu" and dtype.itemsize == 2:
        return ReferenceDecaySGD(params, **hyper)
    return torch.optim.SGD(params, foreach=False, fused=False, **hyper)


def update(tensors: Tensors, which: Sequence[int], backend: str, hyper: dict[str, Any]) -> Findings:
    """Step over some of the tensors together; compare parameters and momenta after each step."""
    found = Findings(cases=1)
    first = tensors.params[0]
    mine = [_copy(tensors.params[i]).requires_grad_() for i in which]
    other = [_copy(tensors.params[i]).requires_grad_() for i in which]
    ours = FusedDecaySGD(mine, backend=backend, **hyper)
    theirs = oracle(other, first.dtype, first.device, **hyper)
    for step, grads in enumerate(tensors.grads):
        for i, p, q in zip(which, mine, other, strict=True):
            late = step == 0 and len(which) > 1 and i == 5  # its first step is another's second
            p.grad = None if late else _copy(grads[i])
            q.grad = None if late else grads[i]
        ours.step()
        theirs.step()
        found.steps += 1
        for i, p, q in zip(which, mine, other, strict=True):
            pairs = [("parameter", p, q)]
            if q in theirs.state and theirs.state[q].get(MOMENTUM) is not None:
                pairs.append(("momentum", ours.state[p][MOMENTUM], theirs.state[q][MOMENTUM]))
            for what, a, b in pairs:
                differing, how = bits.difference(a, b)
                where = f"{tensors.names[i]}, step {step + 1}: {what}{how}"
                found.note(b.numel(), differing, where)
    return found


def update_all(
    tensors: Tensors, choices: Sequence[Sequence[int]], backend: str, hyper: dict[str, Any]
) -> Findings:
    """Compare several choices of the tensors, each in an optimizer of its own."""
    found = Findings()
    for which in choices:
        found.add(update(tensors, which, backend, hyper))
    return found


def _groups(device: torch.device) -> list[dict[str, Any]]:
    made = []
    for lr in (0.1, 0.37):
        p = torch.full((3,), 0.7, dtype=torch.float64, device=device, requires_grad=True)
        p.grad = torch.full_like(p, 1e-3)
        made.append({"params": [p], "lr": lr})
    return made


def _drop_gradients(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Drop the gradients after some steps: the rates move without updates too."""
    if step == WITH_GRADIENTS:
        optimizer.zero_grad()


def _moved(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group[key]) for group in optimizer.param_groups for key in MOVED]


class Schedule:
    """Run one schedule over two groups with torch, once, and with any backend beside it."""

    def __init__(self, rules: list[cases.Rule], device: torch.device, steps: int) -> None:
        self.rules, self.device = rules, device
        self.metrics = [1 / step + (math.sin(step) > 0) for step in range(1, steps + 1)]

    @functools.cached_property
    def torchs(self) -> tuple[list[list[float]], list[Tensor]]:
        """Return the rates and momenta after each step, and the parameters after all of them."""
        optimizer = torch.optim.SGD(_groups(self.device), momentum=0.9, foreach=False, fused=False)
        with warnings.catch_warnings():  # members step each other before the optimizer has
            warnings.filterwarnings("ignore", "Detected call of")
            made = [(rule, rule.torchs(optimizer)) for rule in self.rules]
        stepped = [scheduler for rule, scheduler in made if not rule.is_plateau]
        fed = [scheduler for rule, scheduler in made if rule.is_plateau]
        rows = []
        for step, metric in enumerate(self.metrics, start=1):
            _drop_gradients(optimizer, step)
            optimizer.step()
            for scheduler in stepped:
                scheduler.step()
            for scheduler in fed:
                scheduler.step(metric)
            rows.append(_moved(optimizer))
        return rows, [group["params"][0] for group in optimizer.param_groups]

    def compare(self, backend: str) -> Findings:
        """Compare the rates and momenta after each step, and the parameters at the end."""
        found = Findings(cases=1, steps=len(self.metrics))
        rows, params = self.torchs
        optimizer = FusedDecaySGD(
            _groups(self.device),
            momentum=0.9,
            schedule=[rule.ours() for rule in self.rules],
            backend=backend,
        )
        handle = optimizer.scheduler
        plateau = any(rule.is_plateau for rule in self.rules)
        for step, (metric, want) in enumerate(zip(self.metrics, rows, strict=True), start=1):
            _drop_gradients(optimizer, step)
            optimizer.step()
            if plateau:
                handle.step(metric)
            got = _moved(optimizer)
            different = [i for i in range(len(want)) if not bits.same_rate(got[i], want[i])]
            where = ""
            if different:
                i = different[0]
                where = (
                    f"step {step}, group {i // len(MOVED)}: {MOVED[i % len(MOVED)]} is "
                    f"{got[i]!r}, should be {want[i]!r}"
                )
            found.note(len(want), len(different), where)
        for group, param in zip(optimizer.param_groups, params, strict=True):
            differing, how = bits.difference(group["params"][0], param)
            found.note(param.numel(), differing, f"step {found.steps}: parameter{how}")
        return found
