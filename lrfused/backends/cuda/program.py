"""The host's twin of the program that the kernels of csrc/cuda run."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch import device as Device

from ...extension.load import _C
from ..device import program
from . import driver
from .mirror import Mirror


class Program(program.Program):
    """Launch, too, what csrc/gpu/state.h asks for."""

    make_mirror = Mirror
    observes_replays = True

    def __init__(self, *arguments: Any, previous: Any = None, **named: Any) -> None:
        super().__init__(*arguments, previous=previous, **named)
        # Masters made before their parameters' first step, and both tensors' versions then.
        self.ahead: dict[Tensor, tuple[Tensor, int, int]] = {}
        if isinstance(previous, Program):
            self.ahead = previous.ahead

    @staticmethod
    def runs_on(device: Device) -> bool:
        """Return whether kernels can be launched on a device."""
        return driver.runs_on(device)

    def native(self, device: Device, recording: bool) -> _C.DeviceState:
        """Return a device's part of csrc/gpu/state.h, brought up to date."""
        mirror = self.mirror(device, recording)
        assert isinstance(mirror, self.make_mirror)
        return mirror.native(len(self._moved.epochs), len(self._moved.history))
