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
        self._bound: tuple[int, ...] = ()

    def native(self, groups: int, length: int) -> _C.DeviceState:
        """Return csrc/gpu/state.h's part, bound to the tensors as they are now."""
        tensors = tuple(map(self.__getitem__, _SCHEDULE))
        if (*map(id, tensors), groups, length) != self._bound:
            self._native.bind(tensors, groups, length)
            self._tensors = tensors
            self._bound = (*map(id, tensors), groups, length)
        return self._native

    def advance(self, groups: int, length: int) -> None:
        """Make one schedule step of every group, with a row of a history of this length."""
        self.native(groups, length).advance(current_stream(self.device))

    def observe(self, metric: Tensor, groups: int, length: int) -> None:
        """Feed every plateau one metric, a double on this device."""
        self.native(groups, length).observe(metric, current_stream(self.device))
