"""The compiled extension, or None where there is none."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def extension() -> Any:
    """Return the module of the extension, or None if it cannot be loaded."""
    try:
        from .load import _C
    except ImportError:
        return None
    return _C


def kernels_error() -> str | None:
    """Return the compiler's first error in the CUDA kernels, of an extension without them."""
    try:
        from .load import kernels_error
    except ImportError:
        return None
    return kernels_error
