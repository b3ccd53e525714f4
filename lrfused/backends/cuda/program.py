"""The schedules of an optimizer, run by the kernels of csrc/cuda and by the host."""

from __future__ import annotations

from typing import Any

from torch import device as Device

from ...extension.load import _C
from ..device import program
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
