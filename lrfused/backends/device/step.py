"""The phases of a step of kernels on devices, shared by the backends that launch them.

base.py has the contract. A backend adds a `DeviceStep`, which launches its kernels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from torch import device as Device

from ...arithmetic.gradient_scaling import GradientScaling
from .. import odd_parameters
from ..base import Backend, Groups, State
from . import fallback, transfer


class DeviceStep(ABC):
    """One step of a backend's kernels. Its methods are called once each, in their order here.

    devices: those with parameters for the kernels. odd: (group, parameter) of those that are not
    plain tensors there. firsts: whether a momentum buffer or a master is to be made.
    """

    devices: list[Device]
    odd: list[tuple[int, Tensor]]
    firsts: bool

    @abstractmethod
    def __init__(self, groups: Groups, state: State, program: Any, scaling: GradientScaling):
        """Find the tensors, and write nothing."""

    @abstractmethod
    def create(self) -> None:
        """Make the state that is missing, apart from the optimizer's."""

    @abstractmethod
    def upload(self, device_decides: bool, recording: bool) -> None:
        """Bring up to date what the devices hold; raise RuntimeError if a capture forbids it.

        device_decides: whether what GradScaler found is read on the device.
        """

    @abstractmethod
    def norm(self) -> Tensor:
        """Launch what takes the norm of all gradients, and return it, one fp64 element."""

    @abstractmethod
    def launch(self, advance: bool) -> Sequence[Device]:
        """Launch the update; return the devices that make the schedule's step in it, if asked."""

    @abstractmethod
    def finish(self) -> None:
        """Put the state that was made into the optimizer's, and bump versions."""


class DeviceBackend(Backend):
    """Make steps with kernels; tensors that they cannot take go to the reference.

    make_step: makes the object for one step. first_capture: an advice, how a first step can be
    captured.
    """

    make_step: type[DeviceStep]
    first_capture: ClassVar[str]

    def renew_prepared(self, groups: Groups, state: State, program: Any, recording: bool) -> None:
        """Make anew what `prepare` made of parameters that were written since."""

    def step(
        self, groups: Groups, state: State, program: Any, advance: bool, scaling: GradientScaling
    ) -> bool:
        """Update every parameter that has a gradient, then advance the program if asked.

        Return whether the update was made; True also if the device decides.
        """
        step = self.make_step(groups, state, program, scaling)
        if step.odd or not program.runs_on_all(step.devices):
            program.settle()  # the reference takes rates from the host
            step = self.make_step(groups, state, program, scaling)
        devices, odd = step.devices, step.odd
        recording = self._is_recording(devices, odd)
        if recording:
            self._refuse_capture(step, scaling)
        self.renew_prepared(groups, state, program, recording)
        clips = scaling.max_grad_norm is not None
        if clips and (odd or len(devices) > 1):
            return fallback.step(groups, state, program, advance, scaling)
        # The host must know of a step without an update if it makes state for it, if the schedule
        # rests in it, or if parameters are elsewhere, too.
        host_decides = bool(odd) or len(devices) != 1 or step.firsts or scaling.on_update
        device_decides = not host_decides and scaling.is_on(devices[0])
        if not device_decides and scaling.skips():
            scaling.step_without_update(program, groups, advance)
            return False
        update_odd = None
        if odd:
            update_odd = odd_parameters.OddParameters(
                odd, fallback.groups_now(groups, program), state, program.cells()[::2], scaling,
                lambda parts, momenta: self.step(parts, momenta, program, False, scaling),
            )  # fmt: skip
        if devices:
            step.create()
            step.upload(device_decides, recording)
        if clips:
            scaling.norm = step.norm() if devices else 0.0
            unknown = scaling.scaled and host_decides
            if unknown and not math.isfinite(scaling.grad_norm.item()):
                scaling.step_without_update(program, groups, advance)
                return False
        # The odd ones may still fail, and then nothing has advanced.
        advanced = step.launch(advance and not odd) if devices else ()
        program.use(devices)
        if devices:
            step.finish()
        if update_odd is not None:
            update_odd()
        if advance:
            program.advance(groups, advanced)
        return True

    def _is_recording(self, devices: list[Device], odd: list[tuple[int, Tensor]]) -> bool:
        """Return whether the step is captured in a CUDA graph."""
        if odd:
            runs_on = self.Program.runs_on
            devices = [*devices, *(p.device for _, p in odd if runs_on(p.device))]
        return any(transfer.capturing(device) for device in dict.fromkeys(devices))

    def _refuse_capture(self, step: DeviceStep, scaling: GradientScaling) -> None:
        """Raise RuntimeError for a step that replays could not make without the host."""
        why = None
        if step.odd:
            g, p = step.odd[0]
            why = (
                f"a parameter of shape {tuple(p.shape)} in group {g}, its gradient, its momentum "
                "buffer and its master are not plain tensors in one memory order"
            )
        elif step.firsts:
            why = f"it would make momentum buffers or masters; {self.first_capture}"
        elif scaling.max_grad_norm is not None and len(step.devices) > 1:
            why = "with max_grad_norm and parameters on several devices the host sums up"
        elif scaling.scaled and len(step.devices) > 1:
            why = "with parameters on several devices the host reads what GradScaler found"
        elif scaling.scaled and scaling.on_update:
            why = "with advance='on_update' the host decides whether the schedule advances"
        if why is not None:
            raise RuntimeError(f"this step cannot be captured: {why}")
