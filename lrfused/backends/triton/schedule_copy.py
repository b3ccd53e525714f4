"""A device's copy of the schedule, on which Triton's kernels are launched."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import device as Device

from ...arithmetic.gradient_scaling import GradientScaling
from ..device import schedule_copy
from ..device.images import image
from . import norm, schedule, terms
from .kinds import Kind, Slots
from .launch import launch
from .tables import Sums, Tables

_LANES = 1024  # segments, or cells, looked at together
_PLAIN = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)  # nothing is scaled


class ScheduleCopy(schedule_copy.ScheduleCopy):
    """A copy of the schedule, and the tables of the step; it launches kernels on both."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._tables: dict[Kind, Tables] = {}
        self._sums = Sums(device)
        self._used: list[Tables] = []  # by the present step
        self._terms = "plain terms"

    def put_scaling(self, scaling: GradientScaling, device_decides: bool, recording: bool) -> None:
        """Upload what the host has of scaling: not GradScaler's numbers if the device decides."""
        self.put("plain terms", _PLAIN, _PLAIN, recording)
        self._terms = "plain terms"
        if scaling.scaled and not device_decides:
            self._terms = "grad_scale"
            known = torch.tensor([scaling.inv_scale(), 1.0, 0.0], dtype=torch.float64)
            self.put(self._terms, known, image(known), recording)
        if scaling.max_grad_norm is not None:
            limits = torch.tensor([scaling.max_grad_norm, scaling.scaled], dtype=torch.float64)
            self.put("clipping", limits, image(limits), recording)

    def put_tables(self, found: dict[Kind, Slots], count: int | None, recording: bool) -> None:
        """Upload what differs from the last step's.

        count: of all parameters, if gradients are clipped.

        Raises RuntimeError if a graph is being captured.
        """
        slots = list(found.values())
        for kind in found:
            if kind not in self._tables:
                self._tables[kind] = Tables(kind)
        self._used = [self._tables[kind] for kind in found]
        pairs = list(zip(self._used, slots, strict=True))
        if recording and not (
            all(tables.holds(own) for tables, own in pairs)
            and (count is None or self._sums.holds(slots, count))
        ):
            raise RuntimeError(
                "this step cannot be captured: parameters, gradients or tensors of the state moved "
                "since the last step; keep gradients where they are (zero_grad(set_to_none=False)) "
                "and make two steps with them before the capture"
            )
        for tables, own in pairs:
            tables.put(own)
        if count is not None:
            self._sums.put(slots, count)

    def launch_unscale(self, scaling: GradientScaling, recording: bool) -> None:
        """Compute this step's terms (terms.py) from GradScaler's numbers, on the device."""
        numbers = (scaling.grad_scale, scaling.found_inf)
        here = self.reserve("terms", 3, torch.float64)
        launch(terms.unscale, 1, self.device, *numbers, here)
        self._terms = "terms"
        self.graphs.extend(numbers if recording else ())

    def launch_norm(self, recording: bool) -> Tensor:
        """Return the norm of all gradients, by which the update will clip them."""
        sums = self._sums.launch(self._used, self[self._terms])
        clipped = self.reserve("clipped terms", 3, torch.float64)
        taken = torch.empty((), dtype=torch.float64, device=self.device)
        tensors = (sums, self["clipping"], self[self._terms], clipped, taken)
        launch(norm.clip, 1, self.device, *tensors, len(sums))
        self._terms = "clipped terms"
        self.graphs.extend((taken,) if recording else ())
        return taken

    def launch_update(self, groups: int) -> None:
        """Update all parameters, and note the rates used."""
        for tables in self._used:
            tables.launch(
                self["hyper-parameters"], self["rates"], self[self._terms], self["used"], groups
            )

    def freeze(self) -> None:
        """Leave the present tables to the graph that was captured with them."""
        self.graphs.extend((*self._tables.values(), self._sums))
        self._tables, self._sums = {}, Sums(self.device)

    def advance(self) -> None:
        """Make one schedule step of every group, with a row of the history."""
        groups, length = self.program.groups, self.program.length
        tensors = map(self.__getitem__, _ADVANCE)
        launch(schedule.advance, groups, self.device, *tensors, length, groups, LANES=_LANES)

    def observe(self, metric: Tensor) -> None:
        """Feed every plateau one metric, a double on this device."""
        groups, length = self.program.groups, self.program.length
        self.reserve("cuts", 2 * groups, torch.int32)
        tensors = map(self.__getitem__, _OBSERVE)
        launch(schedule.observe, 2 * groups, self.device, *tensors, metric)
        tensors = map(self.__getitem__, _NOTE_CUTS)
        launch(schedule.note_cuts, groups, self.device, *tensors, length, groups, LANES=_LANES)


_ADVANCE = (
    "rates", "epochs", "first segments", "segments", "constants", "tables", "history", "recorded",
)  # fmt: skip
_OBSERVE = ("rates", "first plateaus", "plateaus", "plateau states", "cuts")
_NOTE_CUTS = ("rates", "epochs", "cuts", "history", "recorded")
