"""The schedules of an optimizer, run by Triton's kernels and by the host."""

from __future__ import annotations

from typing import Any

from torch import device as Device

from ..device import program
from . import launch
from .kinds import Sorter
from .schedule_copy import ScheduleCopy


class Program(program.Program):
    """Run the compiled schedules on the host and on every device with parameters."""

    make_copy = ScheduleCopy

    def __init__(self, *arguments: Any, previous: Any = None, **named: Any) -> None:
        self.sorter: Sorter = previous.sorter if isinstance(previous, Program) else Sorter()
        super().__init__(*arguments, previous=previous, **named)

    def copy_on(self, device: Device, recording: bool = False) -> ScheduleCopy:
        """Return a device's copy of the schedule, brought up to date."""
        copy = super().copy_on(device, recording)
        assert isinstance(copy, ScheduleCopy)
        return copy

    @staticmethod
    def runs_on(device: Device) -> bool:
        """Return whether kernels can be launched on a device."""
        return launch.runs_on(device)
