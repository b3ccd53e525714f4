"""Tensors of our own, made on the host outside of the program's modes.

A default device and a default dtype are overruled by naming both. Inference mode would make tensors
that no later step may write, and a TorchDispatchMode such as FakeTensorMode ones without data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

P = ParamSpec("P")
T = TypeVar("T")


def outside_modes(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function outside of inference mode and of every TorchDispatchMode."""

    @functools.wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> T:
        if not (torch.is_inference_mode_enabled() or torch._C._len_torch_dispatch_stack()):
            return function(*args, **kwargs)
        with torch.inference_mode(False), _disable_current_modes():
            return function(*args, **kwargs)

    return outside


@outside_modes
def tensor(values: Sequence[Any] | float, dtype: torch.dtype) -> Tensor:
    """Return a tensor with these values in host memory."""
    return torch.tensor(values, dtype=dtype, device="cpu")


@outside_modes
def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return zeros in host memory."""
    return torch.zeros(*shape, dtype=dtype, device="cpu")
