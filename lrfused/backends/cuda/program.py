"""The schedules of an optimizer, run by the kernels of csrc/cuda and by the host."""

from __future__ import annotations

from typing import Any

from torch import device as Device

from ...arithmetic.gradient_scaling import GradientScaling
from ...extension.load import _C, MASTERS
from ..base import Groups, State
from ..device import program, transfer
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

    def step_at_once(
        self, groups: Groups, state: State, advance: bool, scaling: GradientScaling
    ) -> bool:
        """Make a step in one call of the extension, if it is a common one: csrc/gpu/step.h.

        Return whether it was made. Nothing is done for any other step.
        """
        copy = self._only_copy()
        if copy is None:
            return False
        if scaling.scaled and (scaling.on_update or not scaling.is_on(copy.device)):
            return False  # the host decides
        self._drain(wait=False)
        pending = self._pending
        made, norm = _C.step_at_once(
            groups, state, self._host_program, copy.native(), copy.images,
            MASTERS[scaling.master], scaling.grad_scale, scaling.found_inf, scaling.max_grad_norm,
            driver.current_stream(copy.device), advance, not pending,
        )  # fmt: skip
        if not made:
            return False
        if norm is not None:
            scaling.norm = norm[0]
        if pending:
            pending.append(self._host_program.use)
        if advance:
            if pending:
                self._advance_later()
                self.show(groups)
            self.is_shown = True
        return True

    def _only_copy(self) -> ScheduleCopy | None:
        """Return the copy on which a step can be made at once, or None."""
        if len(self._copies) != 1 or self.prepared:
            return None
        (copy,) = self._copies.values()
        assert isinstance(copy, ScheduleCopy)
        stays = copy.program is self and copy.is_bound and not transfer.capturing(copy.device)
        return copy if stays else None

    def direct(self, around: Any, scaling: GradientScaling) -> Any:
        """Return the functions that make steps in one call, or None."""
        copy = self._only_copy()
        if copy is None or scaling.max_grad_norm is not None:
            return None
        copies, pending, device = self._copies, self._pending, copy.device

        def stream_now() -> int | None:
            """Return the stream of the next step, or None if that cannot be made in one call."""
            if (
                pending or self.captured or self.prepared or not self.is_shown
                or len(copies) != 1 or copy.program is not self or not copy.is_bound
                or transfer.capturing(device)
            ):  # fmt: skip
                return None
            return driver.current_stream(device)

        on_device = (MASTERS[scaling.master], copy.native(), copy.images, stream_now)
        arguments: tuple[Any, ...] = (self._host_program, *around, *on_device)
        return _C.direct_on_gpu(*arguments)
