"""Steps around which nothing is unusual, made in one call of the extension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)  # CPython caches where a slot is, not where a tuple has a name
class Direct:
    """Functions of an optimizer that make its steps, of csrc/direct.h.

    Each returns False, having changed nothing, if the step takes Python's. Whatever they do not
    look at themselves must not change while `Rates` holds them.
    """

    step: Callable[[Any], bool]
    step_schedule: Callable[[Any], bool]
    observe: Callable[[Any, Any], bool]
