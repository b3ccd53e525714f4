"""State made before the first step, for `torch.distributed.checkpoint` to load into.

Its `get_optimizer_state_dict` and `set_optimizer_state_dict` call `step()` themselves where there
is no state: with gradients of zero, at a rate of 0. Such a step makes momentum buffers of zero, and
masters, and changes nothing else; until something is loaded into them, the next step is the first.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.masters import has_master, made_of

_DEPTH = 16  # frames between the checkpoint's and ours: hooks, profiler, wrappers of `step`

State = dict[Tensor, dict[str, Any]]


class InitialState:
    """Hold the tensors that were made ahead, with their versions."""

    def __init__(self) -> None:
        self.made: dict[Tensor, dict[str, tuple[Tensor, int]]] = {}

    def make(self, groups: list[dict[str, Any]], state: State, master: str | None) -> bool:
        """Make state if this step was called only for that; return whether it was.

        Otherwise state that was made ahead is removed.
        """
        self.forget(state)
        if state or not _is_wanted():
            return False
        for group in groups:
            for p in group["params"]:
                own = _zero_state(p, group["momentum"] != 0, master)
                if own and p.grad is not None:
                    state[p] = own
                    self.made[p] = {key: (t, _version(t)) for key, t in own.items()}
        return True

    def forget(self, state: State) -> None:
        """Remove the state that was made ahead and that nothing was loaded into since."""
        for p, made in self.made.items():
            own = state.get(p, {})
            if all(own.get(k) is t and _version(t) == version for k, (t, version) in made.items()):
                state.pop(p, None)
        self.made = {}


def _zero_state(p: Tensor, momentum: bool, master: str | None) -> dict[str, Tensor]:
    own = {}
    mastered = has_master(p, master)
    if momentum:
        dtype = torch.float32 if mastered else p.dtype
        own["momentum_buffer"] = torch.zeros_like(p, dtype=dtype, requires_grad=False)
    if master is not None and mastered:
        own[master] = made_of(p, master)
    return own


def _version(tensor: Any) -> int:
    # A DTensor's own does not count what is loaded into its part.
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor)._version


def _is_wanted() -> bool:
    """Return whether torch.distributed.checkpoint called this step."""
    checkpoint = sys.modules.get("torch.distributed.checkpoint.state_dict")
    # A rate of 0 and gradients of zero prove nothing: a warmup may begin with both.
    code = getattr(getattr(checkpoint, "_init_optim_state", None), "__code__", None)
    if code is None:
        return False
    frame = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame.f_code is code:
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False
