"""The host's twin of the program that the kernels of csrc/cuda run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import device as Device

from ...extension.load import _C
from ..device import program
from . import driver
from .mirror import Mirror


class Program(program.Program):
    """Launch, too, what csrc/device.h asks for."""

    make_mirror = Mirror
    observes_replays = True

    def __init__(self, *tensors: Any, **named: Any) -> None:
        super().__init__(*tensors, **named)
        self._observed = torch.zeros(1, dtype=torch.int64)
        self._moving["observed"] = self._observed
        self._replayed = 0  # metrics fed by replays, of which nobody was told yet
        # Masters made before their parameters' first step, and both tensors' versions then.
        self.ahead: dict[Tensor, tuple[Tensor, int, int]] = {}

    def succeed(self, previous: Any, momentum_cells: dict[int, int], may_capture: bool) -> None:
        """Go on where this optimizer's last program was, which has settled."""
        if isinstance(previous, Program):
            self._observed.copy_(previous._observed)
            self._replayed, self.ahead = previous._replayed, previous.ahead
        super().succeed(previous, momentum_cells, may_capture)

    def _land(self, metric: float) -> bool:
        self._observed.add_(1)
        return super()._land(metric)

    def _fetch(self, mirror: Any) -> None:
        before = int(self._observed)
        super()._fetch(mirror)
        self._replayed += int(self._observed) - before

    def replayed(self) -> int:
        """Return how many metrics replays have fed since the last call."""
        count, self._replayed = self._replayed, 0
        return count

    @staticmethod
    def runs_on(device: Device) -> bool:
        """Return whether kernels can be launched on a device."""
        return driver.runs_on(device)

    def native(self, device: Device, recording: bool) -> _C.Device:
        """Return a device's part of csrc/device.h, brought up to date."""
        mirror = self.mirror(device, recording)
        assert isinstance(mirror, self.make_mirror)
        return mirror.native(len(self._epochs), len(self._history))
