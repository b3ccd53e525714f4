"""The step in pure PyTorch: every device, the speed of torch's for-loop, and every odd tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..arithmetic.gradient_scaling import GradientScaling
from ..arithmetic.masters import has_master
from ..arithmetic.norm import norm
from ..arithmetic.sgd import gradient_square_sum, update_own
from ..arithmetic.sparse import is_sparse
from ..arithmetic.trial import refused
from ..checks.refusals import (
    check_buffer,
    check_entry,
    check_joinable,
    check_master,
    check_numbers,
    check_parameter,
    check_range,
    check_unusual,
    check_whole,
    refuse_as_torch,
)
from ..outside_modes import outside_modes, tensor
from ..program import ProgramTables
from ..rates.moved import Moved
from ..rates.program import HostProgram
from ..rates.shown import Shown
from .base import Backend, Groups, State


class Program(HostProgram):
    """Run the compiled schedules in Python: the twin of csrc/program.h, line for line."""

    def __init__(
        self, moved: Moved, packed: ProgramTables, shown: Shown, steps: int, **_device_only: Any
    ) -> None:
        self.moved, self.shown, self.left = moved, shown, steps
        self._segments = list(zip(packed.segments.tolist(), packed.constants.tolist(), strict=True))
        self._tables = packed.tables.tolist()
        self._plateaus = list(
            zip(packed.plateau_cells.tolist(), packed.plateaus.tolist(), strict=True)
        )

    @staticmethod
    def runs_on(device: torch.device) -> bool:
        """Return False: torch's own kernels make the update."""
        return False

    @outside_modes
    def use(self) -> None:
        """Note the rates of the step that is now made."""
        self.moved.used.copy_(self.moved.cells[::2])

    @outside_modes
    def advance(self, groups: Groups | None = None) -> None:
        """Make one schedule step of every group, and show its rates in `groups`."""
        self.left -= 1
        self.moved.epochs.add_(1)
        epochs, cells = self.moved.epochs.tolist(), self.cells()
        for (c, begin, end, every, absolute, table), (x, a, b) in self._segments:
            epoch = epochs[c // 2]
            if epoch < begin or epoch >= end or (epoch - begin) % every != 0:
                continue
            if table >= 0:
                x = self._tables[table + (epoch - begin) // every]
            cells[c] = x * (a if absolute else cells[c] - a) + b
        self.moved.cells.copy_(tensor(cells, torch.float64))
        self.moved.record(cut=False)
        if groups is not None:
            self.show(groups)

    @outside_modes
    def feed(self, metric: float) -> bool:
        """Feed one metric to every plateau; return whether any cut its rate."""
        self.moved.observed.add_(1)
        before, states = self.cells(), self.moved.plateau_states.tolist()
        cells = list(before)
        for (c, constants), state in zip(self._plateaus, states, strict=True):
            cells[c] = _observe(constants, state, metric, cells[c])
        self.moved.cells.copy_(tensor(cells, torch.float64))
        self.moved.plateau_states.copy_(tensor(states, torch.float64).reshape(-1, 5))
        cut = cells != before
        if cut:
            self.moved.record(cut=True)
        return cut

    @outside_modes
    def cells(self) -> list[float]:
        """Return the rate and the momentum of each group in turn."""
        return self.moved.cells.tolist()

    @outside_modes
    def show(self, groups: Groups) -> None:
        """Put each group's rate and place into its dict and into `Shown`, as the same objects."""
        self.shown.put(groups, self.cells(), self.moved.epochs.tolist())

    def shows(self, groups: Groups) -> bool:
        """Return whether these are the known groups, each with what was shown last."""
        return self.shown.is_as_shown(groups)


def _is_better(
    maximize: float, absolute: float, threshold: float, metric: float, best: float
) -> bool:
    if maximize:
        return metric > (best + threshold if absolute else best * (threshold + 1.0))
    return metric < (best - threshold if absolute else best * (1.0 - threshold))


def _observe(constants: list[float], state: list[float], metric: float, lr: float) -> float:
    (
        maximize,
        absolute,
        factor,
        patience,
        threshold,
        cooldown,
        min_lr,
        eps,
        accumulate,
        ignore_nan,
    ) = constants
    best, num_bad_epochs, cooldown_counter, total, count = state
    if ignore_nan and metric != metric:
        return lr
    if accumulate > 1:
        total += metric
        count += 1
        if count < accumulate:
            state[3:] = total, count
            return lr
        metric = total / count
        total = count = 0.0
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
    state[:] = best, num_bad_epochs, cooldown_counter, total, count
    return lr


class CheckedParameters:
    """Parameters that were checked: the squares of their gradients summed, and their update.

    params: each with its group's index, those without a gradient included.
    """

    def __init__(
        self,
        params: list[tuple[int, Tensor]],
        groups: list[dict[str, Any]],
        state: dict[Tensor, dict[str, Any]],
        rates: list[float],
        scaling: GradientScaling,
    ) -> None:
        check_numbers(groups)
        # torch reads all states first, which shows where a parameter is listed twice.
        self._todo = [
            (g, p, _state_of(p, state.get(p, {}), groups[g]))
            for g, p in params
            if p.grad is not None
        ]
        for g, p, own in self._todo:
            _check(g, p, own, groups[g], rates[g], scaling)
            if groups[g]["momentum"] != 0 or has_master(p, scaling.master):
                check_entry(p, state)
        self._params, self._groups, self._state, self._rates = params, groups, state, rates
        self._inv_scale, self._master = scaling.inv_scale(), scaling.master

    @torch.no_grad()
    def square_sums(self) -> list[float]:
        """Return the sum of the squares of each one's unscaled gradient."""
        return [gradient_square_sum(p, self._inv_scale, self._master) for _, p in self._params]

    @torch.no_grad()
    def __call__(self, clip: float = 1.0) -> None:
        """Update them, with gradients multiplied by `clip`."""
        for g, p, own in self._todo:
            group, rate = self._groups[g], self._rates[g]
            update_own(p, own, group, rate, self._inv_scale, clip, self._master)
            if own:
                self._state[p].update(own)


def _state_of(p: Tensor, own: dict[str, Any], group: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's state, without a prepared buffer where the first gradient is sparse.

    A buffer that was made for a capture is dense and all -0.0; torch makes this one sparse.
    """
    buffer = own.get("momentum_buffer")
    if not (group.get("capturable") and is_sparse(p.grad) and isinstance(buffer, Tensor)):
        return own
    if is_sparse(buffer) or buffer.is_complex():  # those are not prepared
        return own
    if not bool(((buffer == 0) & buffer.signbit()).all()):
        return own
    return {key: value for key, value in own.items() if key != "momentum_buffer"}


def _check(
    g: int, p: Tensor, own: dict[str, Any], group: dict[str, Any], rate: float, scaling: Any
) -> None:
    """Raise unless a parameter, which has a gradient, can be updated."""
    mastered = has_master(p, scaling.master)
    check_parameter(g, p, mastered)
    clipped = scaling.max_grad_norm is not None
    if clipped:
        check_whole(g, p)
    if mastered and scaling.master == "master_remainder":
        check_joinable(g, p)
    buffer = own.get("momentum_buffer") if group["momentum"] != 0 else None
    check_buffer(g, p, buffer, mastered)
    if scaling.master is not None and mastered:
        check_master(g, p, scaling.master, own.get(scaling.master))
    if not p.is_complex() and not is_sparse(p, p.grad, buffer):
        check_range(g, group, rate, p)
        return
    check_unusual(g, p, scaling.grad_scale is not None, clipped)
    error = refused(p, buffer, group, rate, torch.float32 if mastered else p.dtype)
    if error is not None:
        refuse_as_torch(g, p, buffer, group, error)


class Reference(Backend):
    """Make steps with torch's own operations."""

    name = "reference"
    Program = Program

    def step(
        self, groups: Groups, state: State, program: Any, advance: bool, scaling: GradientScaling
    ) -> bool:
        """Update every parameter that has a gradient, then advance the program if asked.

        Return whether the update was made.
        """
        if scaling.skips():
            scaling.step_without_update(program, groups, advance)
            return False
        params = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
        checked = CheckedParameters(params, groups, state, program.cells()[::2], scaling)
        clip: float | None = 1.0
        if scaling.max_grad_norm is not None:
            clip = scaling.clip(norm(checked.square_sums()))
        if clip is None:
            scaling.step_without_update(program, groups, advance)
            return False
        program.use()
        checked(clip)
        if advance:
            program.advance(groups)
        return True


backend = Reference()
