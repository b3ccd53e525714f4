"""The schedules of an optimizer, run by the kernels of csrc/cuda and by the host."""

from __future__ import annotations

from typing import Any

from torch import device as Device

from ...arithmetic.gradient_scaling import GradientScaling
from ...extension.load import _C, MASTERS
from ..base import Groups, State
from ..device import program, transfer
from . import driver
from .prepared import PreparedMasters
from .schedule_copy import ScheduleCopy


class Program(program.Program):
    """Run the compiled schedules on the host and on every GPU with parameters."""

    make_copy = ScheduleCopy
    observes_replays = True

    def __init__(self, *arguments: Any, previous: Any = None, **named: Any) -> None:
        super().__init__(*arguments, previous=previous, **named)
        self.prepared: PreparedMasters = {}
        if isinstance(previous, Program):
            self.prepared = previous.prepared

    @staticmethod
    def runs_on(device: Device) -> bool:
        """Return whether kernels can be launched on a device."""
        return driver.runs_on(device)

    def native(self, device: Device, recording: bool) -> _C.DeviceState:
        """Return a device's part of csrc/gpu/state.h, brought up to date."""
        copy = self.copy_on(device, recording)
        assert isinstance(copy, ScheduleCopy)
        return copy.native()

    def step_at_once(
        self, groups: Groups, state: State, advance: bool, scaling: GradientScaling
    ) -> bool:
        """Make a step in one call of the extension, if it is a common one: csrc/gpu/step.h.

        Return whether it was made. Nothing is done for any other step.
        """
        if len(self._copies) != 1 or self.prepared:
            return False
        ((device, copy),) = self._copies.items()
        assert isinstance(copy, ScheduleCopy)
        if scaling.scaled and (scaling.on_update or not scaling.is_on(device)):
            return False  # the host decides
        if copy.program is not self or not copy.is_bound or transfer.capturing(device):
            return False
        self._drain(wait=False)
        pending = self._pending
        made, norm = _C.step_at_once(
            groups, state, self._host_program, copy.native(), copy.images,
            MASTERS[scaling.master], scaling.grad_scale, scaling.found_inf, scaling.max_grad_norm,
            driver.current_stream(device), advance, not pending,
        )  # fmt: skip
        if not made:
            return False
        if norm is not None:
            scaling.grad_norm = norm[0]
        if pending:
            pending.append(self._host_program.use)
        if advance:
            self.left -= 1
            if pending:
                pending.append(self._host_program.advance)
                self.show(groups)
            self.is_shown = True
        return True
