"""The host's twin of the program that Triton's kernels run."""

from __future__ import annotations

from typing import Any

from torch import device as Device

from ..device import program
from . import launch
from .memory import Memory
from .mirror import Mirror


class Program(program.Program):
    """Remember, too, how the tensors lay at the last step."""

    make_mirror = Mirror

    def __init__(self, *tensors: Any, **named: Any) -> None:
        super().__init__(*tensors, **named)
        self.memory = Memory()

    def succeed(self, previous: Any, momentum_cells: dict[int, int], may_capture: bool) -> None:
        """Go on where this optimizer's last program was, which has settled."""
        super().succeed(previous, momentum_cells, may_capture)
        if isinstance(previous, Program):
            self.memory = previous.memory

    def forget(self) -> None:
        """Let go of the last step's tensors."""
        self.memory = Memory()

    def mirror(self, device: Device, recording: bool = False) -> Mirror:
        """Return a device's copy, brought up to date."""
        mirror = super().mirror(device, recording)
        assert isinstance(mirror, Mirror)
        return mirror

    @staticmethod
    def runs_on(device: Device) -> bool:
        """Return whether kernels can be launched on a device."""
        return launch.runs_on(device)
