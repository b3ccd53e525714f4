"""Asynchronous copies between host and device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import device as Device


def capturing(device: Device) -> bool:
    """Return whether what this thread launches now is recorded into a graph instead of run."""
    return _query(device)()


@functools.cache
def _query(device: Device) -> Callable[[], bool]:
    """Return the function that tells whether launches are recorded into a graph."""
    module = torch.get_device_module(device)
    return getattr(module, "is_current_stream_capturing", lambda: False)


def upload(to: Tensor, host: Tensor) -> None:
    """Copy a host tensor into a device tensor, in stream order.

    The pinned copy goes back to torch's allocator, which keeps it until the transfer is over.
    """
    if to.device.type != "cpu":
        host = host.pin_memory()
    to.copy_(host, non_blocking=True)


class Flight:
    """Bring a small tensor from a device to the host."""

    def __init__(self, tensor: Tensor) -> None:
        self._event: Any = None
        if tensor.device.type == "cpu":
            self._host = tensor.clone()
            return
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        module = torch.get_device_module(tensor.device)
        with module.device(tensor.device):
            self._event = module.Event()
            self._event.record()

    def landed(self) -> bool:
        """Return whether the tensor is here."""
        return self._event is None or bool(self._event.query())

    def tensor(self) -> Tensor:
        """Return the tensor, when it is here."""
        if self._event is not None:
            self._event.synchronize()
        return self._host

    def number(self) -> float:
        """Return the one number of the tensor, when it is here."""
        return float(self.tensor().item())
