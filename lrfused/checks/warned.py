"""Warnings that point at the line of the caller."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def warnings_of_the_caller(level: int) -> Iterator[None]:
    """Let warnings that are given in the block point at a caller's line.

    level: as `stacklevel`, counted from where the block is.
    """
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        yield
    for warning in given:
        warnings.warn(warning.message, warning.category, stacklevel=level + 2)
