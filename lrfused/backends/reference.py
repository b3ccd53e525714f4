"""The step in pure PyTorch: every device, the speed of torch's for-loop, and every odd tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..checks import check_buffer, check_numbers, check_parameter, check_range
from ..reference import update


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
        """Return the rate of each group."""
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


def prepare(
    odd: list[tuple[int, Tensor]],
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    rates: list[float],
    inv_scale: float,
) -> Callable[[], None]:
    """Check parameters, given with their groups' indices, and return what updates them."""
    check_numbers(groups)
    todo = [(g, p, state.get(p, {})) for g, p in odd if p.grad is not None]
    for g, p, own in todo:
        check_parameter(g, p)
        check_range(g, groups[g], rates[g], p)
        if groups[g]["momentum"] != 0:
            check_buffer(g, p, own.get("momentum_buffer"))

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
