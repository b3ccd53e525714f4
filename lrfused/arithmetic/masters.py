"""fp32 masters of bf16 and fp16 parameters, as the state keeps them.

`master_weights=True` keeps the master in `state[p]["master"]`; the parameter is its rounding.
"remainder" keeps the 16 bits of it that a bf16 parameter lacks, in `state[p]["master_remainder"]`:

    master's bits = (parameter's bits << 16) + remainder,  a signed number

The parameter is the master rounded to nearest, with ties away from zero. Ties to even are not
invertible: 65,537 masters round to one even parameter, and 16 bits tell 65,536 apart.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.bfloat16, torch.float16)
KEYS = {False: None, True: "master", "remainder": "master_remainder"}


def key_of(master_weights: Any) -> str | None:
    """Return the key of masters in the state, or None; raise ValueError for another argument."""
    if not isinstance(master_weights, (bool, str)) or master_weights not in KEYS:
        raise ValueError(
            f"master_weights must be False, True or 'remainder', got {master_weights!r}"
        )
    return KEYS[master_weights]


def has_master(param: Tensor, key: str | None) -> bool:
    """Return whether a parameter has a master: it has 16 bits, and `key` is not None."""
    return key is not None and param.dtype in DTYPES


def made_of(param: Tensor, key: str) -> Tensor:
    """Return the entry of the state for a master that equals its parameter."""
    if key == "master":
        return param.detach().float()
    return torch.zeros_like(param, dtype=torch.int16, requires_grad=False)


def read(param: Tensor, own: dict[str, Any], key: str) -> Tensor:
    """Return the master, made of the parameter if its state has none; no copy for "master"."""
    kept = own.get(key)
    if kept is None:
        return param.detach().float()
    return kept if key == "master" else join(param.detach(), kept)


def write(param: Tensor, own: dict[str, Any], key: str, master: Tensor) -> None:
    """Round the master into its parameter, and put it, or its remainder, into the state."""
    if key == "master":
        own[key] = master
        param.copy_(master)
        return
    rounded, remainder = split(master)
    param.copy_(rounded)
    if own.get(key) is None:
        own[key] = remainder
    else:
        own[key].copy_(remainder)


def join(param: Tensor, remainder: Tensor) -> Tensor:
    """Return the fp32 masters of bfloat16 parameters and their int16 remainders."""
    bits = (param.view(torch.int16).to(torch.int32) << 16) + remainder
    return bits.view(torch.float32)


def split(master: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bfloat16 parameters and int16 remainders of fp32 masters; the NaN is canonical."""
    bits = master.view(torch.int32)
    bits = torch.where(master.isnan(), 0x7FC00000, bits)
    rounded = (bits + 0x8000) >> 16
    return rounded.to(torch.int16).view(torch.bfloat16), (bits - (rounded << 16)).to(torch.int16)
