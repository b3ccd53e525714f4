"""A GPU's copy of the schedule, on which the kernels of csrc/cuda are launched."""

from __future__ import annotations

from torch import Tensor
from torch import device as Device

from ...extension.load import _C
from ..device import schedule_copy
from .driver import current_stream

# In the order of csrc/cuda/commit.h.
_SCHEDULE = (
    "rates", "epochs", "used", "first segments", "segments", "constants", "tables", "history",
    "recorded", "observed", "first plateaus", "plateaus", "plateau states",
)  # fmt: skip


class ScheduleCopy(schedule_copy.ScheduleCopy):
    """A copy of the schedule, and what csrc/gpu/state.h keeps beside it."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        index = 0 if device.index is None else device.index
        self._native = _C.DeviceState(index, _C.driver_version())

    def native(self) -> _C.DeviceState:
        """Return csrc/gpu/state.h's part, bound to the tensors as they are now."""
        if not self.is_bound:
            cycled = self.program.momentum_cells
            cells = [cycled.get(g, -1) for g in range(self.program.groups)]
            tensors = list(map(self.__getitem__, _SCHEDULE))
            self._native.bind(tensors, cells, self.program.length)
            self.is_bound = True
        return self._native

    def advance(self) -> None:
        """Make one schedule step of every group, with a row of the history."""
        self.native().advance(current_stream(self.device))

    def observe(self, metric: Tensor) -> None:
        """Feed every plateau one metric, a double on this device."""
        self.native().observe(metric, current_stream(self.device))
