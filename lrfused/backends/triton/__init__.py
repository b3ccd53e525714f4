"""The step in Triton, for dense tensors on a GPU; other tensors go to the reference.

With TRITON_INTERPRET=1 it runs on the CPU instead, slowly, and computes the same bits: that is how
it is tested where there is no GPU.
"""

from __future__ import annotations

from ..device.step import DeviceBackend
from . import launch
from .device_step import DeviceStep
from .program import Program


class Triton(DeviceBackend):
    """Make steps by Triton's kernels."""

    name = "triton"
    Program = Program
    make_step = DeviceStep
    first_capture = "make two steps before"

    def unavailable(self) -> str | None:
        """Return the reason why kernels cannot be launched here, or do not round as they should."""
        return launch.unavailable()


backend = Triton()
