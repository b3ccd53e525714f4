"""The step in pure PyTorch: every device, the speed of torch's for-loop, and every odd tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..reference import update

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Program:
    """Run a compiled program of schedules: the twin of csrc/program.h, line for line."""

    def __init__(
        self,
        rates: Tensor,
        epochs: Tensor,
        segments: Tensor,
        constants: Tensor,
        tables: Tensor,
        plateau_groups: Tensor,
        plateaus: Tensor,
        plateau_states: Tensor,
    ) -> None:
        self._rates, self._epochs, self._plateau_states = rates, epochs, plateau_states
        self._segments = list(zip(segments.tolist(), constants.tolist(), strict=True))
        self._tables = tables.tolist()
        self._plateaus = list(zip(plateau_groups.tolist(), plateaus.tolist(), strict=True))

    def advance(self) -> None:
        """Make one schedule step of every group."""
        self._epochs.add_(1)
        epochs, rates = self._epochs.tolist(), self._rates.tolist()
        for (group, begin, end, every, absolute, table), (x, a, b) in self._segments:
            epoch = epochs[group]
            if epoch < begin or epoch >= end or (epoch - begin) % every != 0:
                continue
            if table >= 0:
                x = self._tables[table + (epoch - begin) // every]
            rates[group] = x * (a if absolute else rates[group] - a) + b
        self._rates.copy_(torch.tensor(rates, dtype=torch.float64))

    def observe(self, metric: float) -> None:
        """Feed one metric to every plateau."""
        rates, states = self._rates.tolist(), self._plateau_states.tolist()
        for (group, constants), state in zip(self._plateaus, states, strict=True):
            rates[group] = _observe(constants, state, metric, rates[group])
        self._rates.copy_(torch.tensor(rates, dtype=torch.float64))
        self._plateau_states.copy_(torch.tensor(states, dtype=torch.float64).reshape(-1, 3))

    def rates(self) -> list[float]:
        return self._rates.tolist()


def _is_better(
    maximize: float, absolute: float, threshold: float, metric: float, best: float
) -> bool:
    if maximize:
        return metric > (best + threshold if absolute else best * (threshold + 1.0))
    return metric < (best - threshold if absolute else best * (1.0 - threshold))


def _observe(constants: list[float], state: list[float], metric: float, lr: float) -> float:
    maximize, absolute, factor, patience, threshold, cooldown, min_lr, eps = constants
    best, num_bad_epochs, cooldown_counter = state
    if _is_better(maximize, absolute, threshold, metric, best):
        best = metric
        num_bad_epochs = 0.0
    else:
        num_bad_epochs += 1
    if cooldown_counter > 0:
        cooldown_counter -= 1
        num_bad_epochs = 0.0
    if num_bad_epochs > patience:
        cooldown_counter = cooldown
        num_bad_epochs = 0.0
        cut = max(lr * factor, min_lr)
        if lr - cut > eps:
            lr = cut
    state[:] = best, num_bad_epochs, cooldown_counter
    return lr


def check(group: int, param: Tensor, state: dict[str, Any]) -> None:
    """Raise if this parameter, which has a gradient, cannot be updated."""
    grad, buffer = param.grad, state.get("momentum_buffer")
    if grad is None:
        return

    def refuse(what: str) -> None:
        shape = tuple(param.shape)
        raise TypeError(f"FusedDecaySGD: a parameter of shape {shape} in group {group} {what}")

    if grad.layout != torch.strided or param.layout != torch.strided:
        refuse("has a sparse gradient; use torch.optim.SGD for it, or sparse=False")
    if param.dtype not in DTYPES:
        kind = "is complex" if param.is_complex() else f"is {param.dtype}"
        refuse(f"{kind}; use torch.optim.SGD for it, or one of {', '.join(map(str, DTYPES))}")
    for name, other in (("gradient", grad), ("momentum_buffer", buffer)):
        if other is None:
            continue
        if not isinstance(other, Tensor):
            refuse(f"has a {name} that is {type(other).__name__}, not a tensor")
        for trait in ("dtype", "shape", "device"):
            here, there = getattr(param, trait), getattr(other, trait)
            if here != there:
                refuse(f"has a {name} of another {trait}: {there}, not {here}")


def prepare(
    odd: list[tuple[int, Tensor]],
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    rates: list[float],
    inv_scale: float,
) -> Callable[[], None]:
    """Check parameters, given with their groups' indices, and return what updates them."""
    todo = [(g, p, state[p] if p in state else {}) for g, p in odd if p.grad is not None]
    for g, p, own in todo:
        check(g, p, own if groups[g]["momentum"] != 0 else {})

    @torch.no_grad()
    def run() -> None:
        for g, p, own in todo:
            group, grad = groups[g], p.grad
            assert grad is not None
            buffer = own.get("momentum_buffer") if group["momentum"] != 0 else None
            buffer = update(p, grad, buffer, group, rates[g], inv_scale)
            if group["momentum"] != 0:
                state[p]["momentum_buffer"] = buffer

    return run


def step(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    program: Program,
    inv_scale: float,
    advance: bool,
) -> None:
    """Update every parameter that has a gradient, then advance the program if asked."""
    params = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
    prepare(params, groups, state, program.rates(), inv_scale)()
    if advance:
        program.advance()
