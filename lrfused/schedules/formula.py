"""A recipe's function of the epoch, whose numbers are settings."""

from __future__ import annotations

import copy
from typing import Any


class Formula:
    """Be called by LambdaLR, and compared by a checkpoint."""


def own_formula(function: Any) -> Any:
    """Return a copy of a formula, or any other function itself."""
    return copy.copy(function) if isinstance(function, Formula) else function
