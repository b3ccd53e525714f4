"""A device's copy of the schedule: tensors that the kernels read and advance."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import device as Device

from . import transfer
from .images import Images


class ScheduleCopy(ABC):
    """A device's copy of the schedule: named tensors.

    They keep their addresses, so that a captured step goes on reading them. A backend adds how its
    kernels are launched on them.

    images: the numbers that it has of the tensors that the host's program moves. is_bound: cleared
    when a tensor, or the program, is another.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.program: Any = None  # whose segments and plateaus these are
        self.images = Images()
        self.is_bound = False
        self._layout: Any = None  # of the numbers, in the last program
        self.graphs: list[Any] = []  # kept for captured steps, which read it
        self._held: dict[str, Tensor] = {}
        self._keys: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self._held[name]

    def enter(self, program: Any, moving: Sequence[Tensor], layout: Any) -> None:
        """Run a program, whose host tensors are `moving`, with this layout of their numbers."""
        self.images.watch(moving, anew=layout != self._layout)
        self.program, self._layout, self.is_bound = program, layout, False

    def put(self, name: str, host: Tensor, key: Any, recording: bool = False) -> None:
        """Upload a host tensor, unless the key shows that its numbers are here.

        Raises RuntimeError if it must and a graph is being captured.
        """
        known = self._keys.get(name)
        if known is key or (type(key) is bytes and known == key):
            return
        self.upload(name, host, recording)
        self._keys[name] = key

    def upload(self, name: str, host: Tensor, recording: bool) -> None:
        """Upload a host tensor; raise RuntimeError if a graph is being captured."""
        if recording:
            raise RuntimeError(
                f"this step cannot be captured: {name} changed since the last step; make a step "
                "before the capture, on the same stream"
            )
        held = self.reserve(name, host.numel(), host.dtype)
        transfer.upload(held[: host.numel()], host.flatten())

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
            self.is_bound = False
        return held

    @abstractmethod
    def advance(self) -> None:
        """Make one schedule step of every group, with a row of the history."""

    @abstractmethod
    def observe(self, metric: Tensor) -> None:
        """Feed every plateau one metric, a double on this device."""
