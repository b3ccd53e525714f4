"""The step in CUDA (csrc/cuda), for dense tensors on a GPU; other tensors go to the reference.

One launch on each device updates all tensors of all groups and makes the schedule's step for the
next (several, in a capture whose tables exceed the kernel's argument); with max_grad_norm one
before it takes the norm. An lrfused that was built without CUDA runs
the same code on CPU tensors, slowly, where LRFUSED_EMULATE_CUDA=1: that is how it is tested where
there is no GPU.
"""

from __future__ import annotations

from typing import Any

from torch import device as Device

from ...arithmetic.gradient_scaling import GradientScaling
from ...rates import Rates
from ...rates.direct import Direct
from .. import direct
from ..base import Groups, State
from ..device.step import DeviceBackend
from . import driver, prepared
from .device_step import DeviceStep
from .program import Program


class Cuda(DeviceBackend):
    """Make steps by compiled CUDA kernels."""

    name = "cuda"
    Program = Program
    make_step = DeviceStep
    first_capture = (
        "make a step before, or construct the optimizer with capturable=True on parameters that "
        "are on the GPU, without dampening"
    )

    def unavailable(self) -> str | None:
        """Return the reason why the kernels cannot be launched here, or None if they can."""
        return driver.unavailable()

    def unavailable_on(self, device: Device) -> str | None:
        """Return the reason why the kernels cannot run on a device of theirs, or None."""
        return driver.unavailable_on(device)

    def step(
        self, groups: Groups, state: State, program: Any, advance: bool, scaling: GradientScaling
    ) -> bool:
        """Make a step, after which the masters that it used are no longer prepared ones."""
        if program.step_at_once(groups, state, advance, scaling):
            return True
        updated = super().step(groups, state, program, advance, scaling)
        if updated and program.prepared:
            prepared.forget_used(groups, program.prepared)
        return updated

    def direct(self, rates: Rates, scaling: GradientScaling, may_warn: bool) -> Direct | None:
        """Return functions that make ordinary steps in one call, or None."""
        functions = rates.program.direct(direct.around(rates, may_warn), scaling)
        return functions and Direct(*functions)

    def prepare(self, groups: Groups, state: State, program: Any, scaling: GradientScaling) -> None:
        """Make state, and room on the devices, for a capture of the very first step."""
        prepared.make(groups, state, scaling, driver.runs_on, program.prepared)
        params = [p for group in groups for p in group["params"]]
        numels = [p.numel() for p in params]
        for device in dict.fromkeys(p.device for p in params if driver.runs_on(p.device)):
            program.native(device, recording=False).reserve(numels)

    def without_prepared(self, state: State, program: Any) -> State:
        """Return the state without the masters that no step has used."""
        return prepared.without(state, program.prepared)

    def renew_prepared(self, groups: Groups, state: State, program: Any, recording: bool) -> None:
        """Make masters anew whose parameters were written since `prepare`."""
        if program.prepared:
            prepared.renew(groups, state, program.prepared, recording)


backend = Cuda()
