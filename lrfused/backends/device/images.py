"""The numbers of host tensors that a device has; csrc/images.h's twin, where that is not there."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from torch import Tensor


def image(tensor: Tensor) -> bytes:
    """Return the bytes of a small contiguous host tensor."""
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes) if tensor.numel() else b""


class ImagesInPython:
    """Tensors in host memory, each with the numbers that a device has of it."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._known: list[bytes | None] = []

    def watch(self, tensors: Sequence[Tensor], anew: bool) -> None:
        """Look at these tensors from now on. The device keeps its numbers, unless `anew`."""
        self._tensors = list(tensors)
        known = [] if anew else self._known
        self._known = [*known, *[None] * len(tensors)][: len(tensors)]

    def changed(self) -> list[int]:
        """Return the indices of the tensors whose numbers the device lacks."""
        return [i for i, known in enumerate(self._known) if known != image(self._tensors[i])]

    def unchanged(self) -> bool:
        """Return whether the device has every tensor's numbers."""
        return not self.changed()

    def note(self, i: int) -> None:
        """Note that the device has tensor i's numbers now."""
        self._known[i] = image(self._tensors[i])

    def note_moved(self) -> None:
        """Note that the device has made a move that the host has made: what it had it has again."""
        for i, known in enumerate(self._known):
            if known is not None:
                self.note(i)


try:
    from ...extension.load import _C

    Images: Any = _C.Images
except ImportError:
    Images = ImagesInPython
