"""A device's own copy of the schedule: what the kernels read, and what they alone advance."""

from __future__ import annotations

import struct
import warnings
from typing import Any

import torch
from torch import Tensor
from torch import device as Device

from . import schedule
from .launch import launch, upload
from .tables import Tables

_LANES = 1024  # segments looked at together


def image(tensor: Tensor) -> bytes:
    """Return the bytes of a small host tensor of doubles or 64-bit integers."""
    values = tensor.flatten().tolist()
    return struct.pack(f"{len(values)}{'d' if tensor.is_floating_point() else 'q'}", *values)


class Mirror:
    """Hold named device tensors, each beside the key of what it is believed to hold.

    They stay where they are, so that a captured step goes on reading them.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.tables: dict[torch.dtype, Tables] = {}
        self._graphs: list[Any] = []  # what captured steps read, and we have left
        self._held: dict[str, Tensor] = {}
        self._keys: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self._held[name]

    def put(self, name: str, host: Tensor, key: Any, recording: bool = False) -> None:
        """Upload a host tensor, unless the key says that its numbers are here.

        Raises RuntimeError if it should and a graph is being captured.
        """
        known = self._keys.get(name)
        if known is key or (type(key) is bytes and known == key):
            return
        if recording:
            raise RuntimeError(
                f"this step cannot be captured: {name} changed since the last step; make a step "
                "before the capture, on the same stream"
            )
        held = self._held.get(name)
        if held is None or held.numel() < host.numel():
            if held is not None and self._graphs:
                warnings.warn(
                    f"lrfused: {name} outgrew its place in device memory; capture the step anew, "
                    "a graph captured before goes on without it",
                    stacklevel=2,
                )
                self._graphs.append(held)
            room = max(64, 2 * host.numel())
            held = self._held[name] = torch.empty(room, dtype=host.dtype, device=self.device)
        upload(held[: host.numel()], host.flatten())
        self._keys[name] = key

    def believe(self, name: str, key: bytes) -> None:
        """Note that the device has come by itself to what the key says."""
        self._keys[name] = key

    def tables_of(self, dtype: torch.dtype) -> Tables:
        """Return the tables of a dtype."""
        tables = self.tables.get(dtype)
        if tables is None:
            tables = self.tables[dtype] = Tables(self.device, dtype)
        return tables

    def freeze(self) -> None:
        """Leave the present tables to the graph that was captured with them."""
        self._graphs.extend(self.tables.values())
        self.tables = {}

    # -- kernels -----------------------------------------------------------------------------

    def advance(self, cells: int) -> None:
        """Make one schedule step of every cell."""
        tensors = map(self._held.__getitem__, _ADVANCE)
        launch(schedule.advance, cells, self.device, *tensors, LANES=_LANES)

    def observe(self, metric: Tensor, cells: int) -> None:
        """Feed every plateau one metric, a double on this device."""
        tensors = map(self._held.__getitem__, _OBSERVE)
        launch(schedule.observe, cells, self.device, *tensors, metric)


_ADVANCE = ("rates", "epochs", "first segments", "segments", "constants", "tables")
_OBSERVE = ("rates", "first plateaus", "plateaus", "plateau states")
