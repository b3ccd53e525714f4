"""The conditions of a direct step that are the same on every device: csrc/direct.h."""

from __future__ import annotations

from typing import Any

from torch.optim import optimizer as torchs

from ..rates import Rates


def around(rates: Rates, may_warn: bool) -> tuple[Any, bool, bool, bool, dict[str, Any]]:
    """Return `read`, `advance`, `by_hand`, `may_warn` and `torchs` of a Direct."""
    by_hand = rates.clock.every is None
    advance, by_hand = rates.stepped and not by_hand, rates.stepped and by_hand
    return rates.read, advance, by_hand, may_warn and bool(rates.bound), vars(torchs)
