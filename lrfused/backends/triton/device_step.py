"""One step of Triton's kernels, phase by phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import device as Device

from ...arithmetic.gradient_scaling import GradientScaling
from ...arithmetic.masters import made_of
from ...checks.refusals import check_entry
from ..base import Groups, State
from ..device import step
from . import launch, slots
from .hypers import hypers_of
from .kinds import BUFFER, KEPT, MASTER, MODE
from .program import Program
from .sgd import FIRST

try:
    from ...extension.load import _C, MASTERS
except ImportError:
    _C = None  # type: ignore[assignment]


def gather(
    groups: Groups, state: State, cells: list[float], key: str | None, device_type: str
) -> Any:
    """Find the parameters that have a gradient: in C++, or where that is not there in Python."""
    if _C is None:
        return slots.gather(groups, state, cells, key, device_type)
    return _C.gather(groups, state, cells, MASTERS[key], device_type)


class DeviceStep(step.DeviceStep):
    """A step that is one launch for each kind of parameters, after those that scale and clip."""

    def __init__(self, groups: Groups, state: State, program: Program, scaling: GradientScaling):
        self._groups, self._state = groups, state
        self._program, self._scaling = program, scaling
        device_type = launch.device_type(groups)
        self._found = gather(groups, state, program.cells(), scaling.master, device_type)
        self._slots, self.devices = program.sorter.take(self._found.slots, device_type)
        self.odd, self.firsts = self._found.odd, bool(self._found.firsts)
        self._created: list[tuple[Tensor, str, Tensor]] = []

    def create(self) -> None:
        """Make momentum buffers, and masters, which begin as their parameters are."""
        if not self.firsts:
            return
        key, table = self._scaling.master, self._slots
        for i, (p, row) in enumerate(zip(self._found.params, table.tolist(), strict=True)):
            if row[MODE] == FIRST.value or row[KEPT]:
                check_entry(p, self._state)
            if row[MODE] == FIRST.value:
                dtype = torch.float32 if row[KEPT] else p.dtype
                made = torch.empty_like(p, dtype=dtype, requires_grad=False)
                table[i, BUFFER] = made.data_ptr()
                self._created.append((p, slots.BUFFER, made))
            if key is not None and row[KEPT] and self._state.get(p, {}).get(key) is None:
                made = made_of(p, key)
                table[i, MASTER] = made.data_ptr()
                self._created.append((p, key, made))

    def upload(self, device_decides: bool, recording: bool) -> None:
        """Bring each device's tables and its copy of the schedule up to date."""
        self._recording, scaling = recording, self._scaling
        program, places = self._program, self._found.places
        by_kind = program.sorter.sort(self._slots)
        numbers = hypers_of(self._groups, program.momentum_cells)
        hypers, key = torch.frombuffer(numbers, dtype=torch.float64), numbers.tobytes()
        self._copies = [program.copy_on(device, recording) for device in self.devices]
        for copy in self._copies:
            copy.put("hyper-parameters", hypers, key, recording)
            copy.put_scaling(scaling, device_decides, recording)
        for copy in self._copies:
            own = {kind: rows for kind, rows in by_kind.items() if kind.device == copy.device}
            copy.put_tables(own, places if scaling.max_grad_norm is not None else None, recording)
        if device_decides:
            for copy in self._copies:
                copy.launch_unscale(scaling, recording)

    def norm(self) -> Tensor:
        """Launch what takes the norm of all gradients, and return it, one fp64 element."""
        (copy,) = self._copies
        return copy.launch_norm(self._recording)

    def launch(self, advance: bool) -> Sequence[Device]:
        """Launch the update; the schedule's step is another launch."""
        for copy in self._copies:
            copy.launch_update(len(self._groups))
        return ()

    def finish(self) -> None:
        """Put the state that was made into the optimizer's, and bump versions."""
        self._found.bump_versions()
        for p, key, tensor in self._created:
            self._state[p][key] = tensor
        if self._recording:
            for copy in self._copies:
                copy.freeze()
