"""The conditions of a direct step that are the same on every device: csrc/direct.h."""

from __future__ import annotations

from typing import Any

from torch.optim import optimizer as torchs

from ..rates import Rates


def around(rates: Rates, may_warn: bool) -> tuple[Any, bool, bool, bool, list[Any]]:
    """Return `read`, `advance`, `by_hand`, `may_warn` and `hooks` of a Direct."""
    hooks = [torchs._global_optimizer_pre_hooks, torchs._global_optimizer_post_hooks]
    by_hand = rates.clock.every is None
    advance = rates.stepped and not by_hand
    return rates.read, advance, rates.stepped and by_hand, may_warn and bool(rates.bound), hooks
