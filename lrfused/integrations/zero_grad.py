"""zero_grad in the extension, where nothing asks for torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.compiler import is_dynamo_compiling
from torch.optim import Optimizer

from ..extension.optional import extension

_native: Callable[[Any, bool], bool] | None = None  # looked up once


def zero_grad(self: Any, set_to_none: bool = True) -> None:
    """Reset the gradients of all parameters: drop them or, as torch does, fill them with 0.

    torch's method opens a profiler range, and makes a Python object of each gradient to drop it.
    """
    if is_dynamo_compiling() or not (_native or _load())(self.param_groups, set_to_none):
        Optimizer.zero_grad(self, set_to_none)


def _load() -> Callable[[Any, bool], bool]:
    """Return the extension's function, or one that leaves all gradients to torch."""
    global _native
    native = extension()
    _native = native.zero_grad if native is not None else lambda groups, set_to_none: False
    return _native
