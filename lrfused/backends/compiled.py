"""The step in C++ (csrc), for dense tensors on the CPU; others go to odd_parameters.py."""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.gradient_scaling import GradientScaling
from ..extension.load import _C, MASTERS
from ..program import ProgramTables
from ..rates import Rates
from ..rates.direct import Direct
from ..rates.moved import Moved
from ..rates.program import HostProgram
from ..rates.shown import Shown
from . import direct, odd_parameters
from .base import Backend, Groups, State


class Program(_C.Program, HostProgram):
    """Run the compiled schedules in C++: csrc/program.h."""

    def __init__(
        self, moved: Moved, packed: ProgramTables, shown: Shown, steps: int, **_device_only: Any
    ) -> None:
        self.moved, self.shown = moved, shown
        lists = (shown.groups, shown.rates, shown.momenta)
        places = (shown.templates, shown.places, shown.kept)
        super().__init__(moved, packed, (*lists, *places), steps)

    def note_states(self) -> None:
        """Put the states of the plateaus into the templates of the places."""
        metrics = int(self.moved.observed) - self.shown.observed_before
        self.note_plateaus(metrics)

    @staticmethod
    def runs_on(device: torch.device) -> bool:
        """Return whether the step in C++ takes tensors on a device."""
        return device.type == "cpu"


# Where torch's own CPU kernels round a product before they add it, so does the step.
USE_FMA = not (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.cpu.get_cpu_capability() == "DEFAULT"
)


class Compiled(Backend):
    """Make steps in C++."""

    name = "compiled"
    Program = Program

    def step(
        self, groups: Groups, state: State, program: Any, advance: bool, scaling: GradientScaling
    ) -> bool:
        """Update every parameter that has a gradient, then advance the program if asked.

        Return whether the update was made.
        """
        if scaling.found_inf is not None and scaling.skips():
            scaling.step_without_update(program, groups, advance)
            return False

        def odd(params: list[tuple[int, Tensor]]) -> Any:
            return odd_parameters.OddParameters(
                params, groups, state, program.cells()[::2], scaling,
                lambda parts, momenta: self.step(parts, momenta, program, False, scaling),
            )  # fmt: skip

        updated, created, norm = _C.step(
            groups,
            state,
            program,
            1.0 if scaling.grad_scale is None else scaling.inv_scale(),
            scaling.max_grad_norm,
            scaling.scaled,
            MASTERS[scaling.master],
            advance,
            USE_FMA,
            odd,
        )
        if scaling.max_grad_norm is not None:
            scaling.norm = norm
        if not updated:
            scaling.step_without_update(program, groups, advance)
        if created:
            _order(groups, state)
        return updated

    def direct(self, rates: Rates, scaling: GradientScaling, may_warn: bool) -> Direct | None:
        """Return functions that make ordinary steps in one call."""
        around = direct.around(rates, may_warn)
        observes = rates.plateaus.process_group is None and rates.plateaus.announcer() is None
        fed_before = rates.shown.observed_before if rates.fed and observes else None
        own = (fed_before, MASTERS[scaling.master], USE_FMA, scaling.max_grad_norm, scaling)
        return Direct(*_C.direct(rates.program, *around, *own))


backend = Compiled()


def _order(groups: Groups, state: State) -> None:
    """Put the state's entries in the order of the parameters, where the step finds them fastest."""
    ordered = {p: state[p] for group in groups for p in group["params"] if p in state}
    ordered.update({k: v for k, v in state.items() if k not in ordered})
    if any(a is not b for a, b in zip(ordered, state, strict=True)):
        state.clear()  # not only reordered: without the holes that removed entries leave
        state.update(ordered)
