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

    def __init__(self, *arguments: Any, previous: Any = None, **named: Any) -> None:
        self.memory: Memory = previous.memory if isinstance(previous, Program) else Memory()
        super().__init__(*arguments, previous=previous, **named)

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
