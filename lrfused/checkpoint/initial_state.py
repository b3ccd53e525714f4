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


def made(optimizer: Any) -> bool:
    """Make the state if that is all this step is called for; else forget what was made before."""
    forget(optimizer)
    if optimizer.state or not _wanted():
        return False
    for group in optimizer.param_groups:
        for p in group["params"]:
            own = _zero_state(p, group["momentum"] != 0, optimizer._scaling.master)
            if own and p.grad is not None:
                optimizer.state[p] = own
                optimizer._blank[p] = {key: (t, _version(t)) for key, t in own.items()}
    return True


def forget(optimizer: Any) -> None:
    """Remove the state that was made ahead and that nothing was loaded into since."""
    for p, made in optimizer._blank.items():
        own = optimizer.state.get(p, {})
        if all(own.get(k) is t and _version(t) == version for k, (t, version) in made.items()):
            optimizer.state.pop(p, None)
    optimizer._blank = {}


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


def _wanted() -> bool:
    checkpoint = sys.modules.get("torch.distributed.checkpoint.state_dict")
    # Neither a rate of 0 nor gradients of zero tell: a warmup may begin with both.
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
