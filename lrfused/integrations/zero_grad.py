"""zero_grad in the extension, where nothing asks for torch's own."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from ..extension.optional import extension


def zero_grad(optimizer: Any, set_to_none: bool = True) -> None:
    """Reset the gradients of an optimizer's parameters, as torch's method does.

    That method opens a profiler range, and makes a Python object of each gradient to drop it.
    """
    if torch.compiler.is_dynamo_compiling() or (native := extension()) is None:
        return Optimizer.zero_grad(optimizer, set_to_none)
    if native.has_observers() or not native.zero_grad(optimizer.param_groups, bool(set_to_none)):
        Optimizer.zero_grad(optimizer, set_to_none)
