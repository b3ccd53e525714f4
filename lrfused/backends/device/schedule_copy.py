"""A device's copy of the schedule: tensors that the kernels read and advance."""

from __future__ import annotations

import ctypes
import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch import device as Device

from . import transfer


def image(tensor: Tensor) -> bytes:
    """Return the bytes of a small contiguous host tensor."""
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes) if tensor.numel() else b""


class ScheduleCopy(ABC):
    """A device's copy of the schedule: named tensors, each with a key of its present numbers.

    They keep their addresses, so that a captured step goes on reading them. A backend adds how its
    kernels are launched on them.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.program: Any = None  # whose segments and plateaus these are
        self.graphs: list[Any] = []  # kept for captured steps, which read it
        self._held: dict[str, Tensor] = {}
        self._keys: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self._held[name]

    def put(self, name: str, host: Tensor, key: Any, recording: bool = False) -> None:
        """Upload a host tensor, unless the key shows that its numbers are here.

        Raises RuntimeError if it must and a graph is being captured.
        """
        known = self._keys.get(name)
        if known is key or (type(key) is bytes and known == key):
            return
        if recording:
            raise RuntimeError(
                f"this step cannot be captured: {name} changed since the last step; make a step "
                "before the capture, on the same stream"
            )
        held = self.reserve(name, host.numel(), host.dtype)
        transfer.upload(held[: host.numel()], host.flatten())
        self._keys[name] = key

    def reserve(self, name: str, numel: int, dtype: torch.dtype) -> Tensor:
        """Return the tensor of a name, with room for a number of elements."""
        held = self._held.get(name)
        if held is None or held.numel() < numel:
            if held is not None and self.graphs:
                warnings.warn(
                    f"lrfused: {name} outgrew its place in device memory; capture the step anew, "
                    "a graph captured before goes on without it",
                    stacklevel=2,
                )
                self.graphs.append(held)
            room = max(64, 2 * numel)
            held = self._held[name] = torch.empty(room, dtype=dtype, device=self.device)
        return held

    def had(self, name: str, key: bytes) -> bool:
        """Return whether the device had, before replays, the numbers of a key."""
        return bool(self._keys.get(name) == key)

    def note(self, name: str, key: bytes) -> None:
        """Note that the device has come by itself to the numbers of a key."""
        self._keys[name] = key

    @abstractmethod
    def advance(self, groups: int, length: int) -> None:
        """Make one schedule step of every group, with a row of a history of this length."""

    @abstractmethod
    def observe(self, metric: Tensor, groups: int, length: int) -> None:
        """Feed every plateau one metric, a double on this device."""
