"""One step of csrc/cuda's kernels: calls the phases of csrc/gpu/step.h."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch import device as Device

from ...arithmetic.gradient_scaling import GradientScaling
from ...extension.load import _C, MASTERS
from ..base import Groups, State
from ..device import step
from . import driver
from .program import Program


class DeviceStep(step.DeviceStep):
    """One launch on each device, and with max_grad_norm one before it."""

    def __init__(self, groups: Groups, state: State, program: Program, scaling: GradientScaling):
        self._found = _C.DeviceStep(groups, state, program.cells(), MASTERS[scaling.master])
        self._state, self._program, self._scaling = state, program, scaling
        self.devices = [driver.device_of(index) for index in self._found.devices]
        self.odd, self.firsts = self._found.odd, bool(self._found.firsts)

    def create(self) -> None:
        """Make momentum buffers and masters."""
        if self.firsts:
            self._found.create(self._state)

    def upload(self, device_decides: bool, recording: bool) -> None:
        """Bring each device's copy of the schedule up to date; a launch takes its table along."""
        self._recording = recording
        self._natives = {device: self._program.native(device, recording) for device in self.devices}
        scaling = self._scaling
        if device_decides:
            self._found.scale(1.0, scaling.grad_scale, scaling.found_inf)
        else:
            self._found.scale(scaling.inv_scale(), None, None)

    def norm(self) -> Tensor:
        """Launch what takes the norm of all gradients, and return it, one fp64 element."""
        (device,) = self.devices
        bound, stream = self._scaling.max_grad_norm, driver.current_stream(device)
        assert bound is not None
        return self._found.norm(self._natives[device], stream, bound, self._recording)[0]

    def launch(self, advance: bool) -> Sequence[Device]:
        """Launch the update, which makes the schedule's step too."""
        for device, native in self._natives.items():
            self._found.launch(
                native,
                driver.current_stream(device),
                advances=advance,
                always=True,
                finite=self._scaling.scaled,
                recording=self._recording,
            )
        return self.devices if advance else ()

    def finish(self) -> None:
        """Put the state that was made into the optimizer's, and bump versions."""
        self._found.finish(self._state)
