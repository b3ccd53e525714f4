"""A device's own copy of the schedule: what the kernels read, and what they alone advance."""

from __future__ import annotations

import struct
import warnings
from typing import Any

import torch
from torch import Tensor
from torch import device as Device

from . import schedule
from .launch import INTERPRETED, launch, upload
from .tables import Tables

_CELLS = 1024 if INTERPRETED else 32  # a program's


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
        self._frozen: list[Tables] = []  # a graph reads them
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
            if held is not None and self._frozen:
                warnings.warn(
                    f"lrfused: {name} outgrew its place in device memory; capture the step anew, "
                    "a graph captured before goes on without it",
                    stacklevel=2,
                )
                self._held[f"{name} of a graph, {held.data_ptr()}"] = held
            room = max(64, 2 * host.numel())
            held = self._held[name] = torch.empty(room, dtype=host.dtype, device=self.device)
        upload(held[: host.numel()], host.flatten())
        self._keys[name] = key

    def believe(self, name: str, key: bytes) -> None:
        """Note that the device has come by itself to what the key says."""
        self._keys[name] = key

    def tables_of(self, dtype: torch.dtype) -> Tables:
        """Return the tables of a dtype, other ones if a graph reads those of the last step."""
        tables = self.tables.get(dtype)
        if tables is None:
            tables = self.tables[dtype] = Tables(self.device, dtype)
        return tables

    def freeze(self) -> None:
        """Leave the present tables to the graph that was captured with them."""
        self._frozen.extend(self.tables.values())
        self.tables = {}

    # -- kernels -----------------------------------------------------------------------------

    def advance(self, count: int) -> None:
        """Make one schedule step of every cell."""
        launch(
            schedule.advance, -(-count // _CELLS), self.device,
            *map(self._held.__getitem__, _ADVANCE), count, CELLS=_CELLS,
        )  # fmt: skip

    def observe(self, metric: Tensor, count: int) -> None:
        """Feed every plateau one metric, a double on this device."""
        launch(
            schedule.observe, -(-count // _CELLS), self.device,
            *map(self._held.__getitem__, _OBSERVE), metric, count, CELLS=_CELLS,
        )  # fmt: skip


_ADVANCE = ("rates", "epochs", "first segments", "segments", "constants", "tables")
_OBSERVE = ("rates", "first plateaus", "plateaus", "plateau states")
