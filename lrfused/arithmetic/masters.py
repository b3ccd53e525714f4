"""fp32 masters of 16-bit parameters: what the state keeps of them, and how it is read and written.

`master_weights=True` keeps the master, `state[p]["master"]`, and the parameter is its rounding.
"remainder" keeps what a bfloat16 lacks of it, `state[p]["master_remainder"]`, in 16 bits:

    master's bits = (parameter's bits << 16) + remainder,  a signed number

This is one to one where the parameter is the master rounded to nearest with ties away from zero.
With ties to even it could not be: 65,537 masters would round to one even parameter.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.bfloat16, torch.float16)
KEYS = {False: None, True: "master", "remainder": "master_remainder"}


def key_of(master_weights: Any) -> str | None:
    """Return what the state calls it; raise ValueError for what is no such argument."""
    if not isinstance(master_weights, (bool, str)) or master_weights not in KEYS:
        raise ValueError(
            f"master_weights must be False, True or 'remainder', got {master_weights!r}"
        )
    return KEYS[master_weights]


def has_master(param: Tensor, key: str | None) -> bool:
    """Return whether a parameter has a master, being too narrow to be its own."""
    return key is not None and param.dtype in DTYPES


def made_of(param: Tensor, key: str) -> Tensor:
    """Return what the state keeps, under this key, of a master that equals its parameter."""
    if key == "master":
        return param.detach().float()
    return torch.zeros_like(param, dtype=torch.int16, requires_grad=False)


def read(param: Tensor, own: dict[str, Any], key: str) -> Tensor:
    """Return the master, made of the parameter if its state has none; a copy, but for "master"."""
    kept = own.get(key)
    if kept is None:
        return param.detach().float()
    return kept if key == "master" else join(param.detach(), kept)


def write(param: Tensor, own: dict[str, Any], key: str, master: Tensor) -> None:
    """Round the master into its parameter, and keep of it what the key says."""
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
