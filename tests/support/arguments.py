"""Numbers of numpy, torch and Python as arguments, and runs over checkpoints of them."""

import copy
import io
from enum import IntEnum
from fractions import Fraction

import numpy as np
import pytest
import torch

from lrfused import FusedDecaySGD

from .loops import groups_of


class Three(IntEnum):
    THREE = 3


INTEGERS = {
    "np.int64": np.int64,
    "np.uint8": np.uint8,
    "np.array": np.array,
    "np.array-one": lambda n: np.array([n]),
    "tensor": torch.tensor,
    "tensor-one": lambda n: torch.tensor([n], dtype=torch.int32),
    "Fraction": Fraction,
    "int": int,
    "enum": lambda n: Three.THREE if n == 3 else n,
}
REALS = {
    "np.float64": np.float64,
    "np.float32": np.float32,
    "np.float16": np.float16,
    "np.longdouble": np.longdouble,
    "np.array": np.array,
    "np.array-object": lambda x: np.array(Fraction(x), dtype=object),
    "tensor": torch.tensor,
    "tensor-double": lambda x: torch.tensor(x, dtype=torch.float64),
    "tensor-bfloat16": lambda x: torch.tensor(x, dtype=torch.bfloat16),
    "tensor-grad": lambda x: torch.tensor(x, requires_grad=True),
    "tensor-one": lambda x: torch.tensor([x]),
    "Fraction": Fraction,
    "float": float,
}
SEVERAL = {
    "np.array": np.array,
    "np.array-float32": lambda v: np.array(v, dtype=np.float32),
    "list-of-numpy": lambda v: [np.float64(x) for x in v],
    "tensor": torch.tensor,
    "list-of-tensors": lambda v: [torch.tensor(x) for x in v],
    "tuple": tuple,
}
FLAGS = {"np.bool": np.bool_, "np.array": np.array, "tensor": torch.tensor}


def kinds_of(value):
    if isinstance(value, bool):
        return FLAGS
    if isinstance(value, list):
        return SEVERAL
    return INTEGERS if isinstance(value, int) else REALS


def products(table):
    return [
        pytest.param(kind, name, convert, id=f"{kind}-{name}-{of}")
        for kind, numbers in table.items()
        for name, value in numbers.items()
        for of, convert in kinds_of(value).items()
    ]


def optimizer_of(schedule):
    return FusedDecaySGD(groups_of([0.5, 0.25], momentum=0.5), schedule=schedule)


def trained(optimizer, handle, steps=4):
    seen = []
    for step in range(steps):
        optimizer.step()
        if handle is not None:
            handle.step()
        elif optimizer._internals.rates.plateaus:
            optimizer.scheduler.step(1.0 + step)
        groups = optimizer.state_dict()["param_groups"]  # a tensor rate shows it rounded
        seen.append([(group["lr"], group["momentum"]) for group in groups])
    return seen


def reloaded(state):
    """Save and load a checkpoint as a careful program does."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_loads_its_own(make):
    """Save after some steps, load into a new one, and go on as the first does."""
    first, handle = make()
    trained(first, handle)
    saved, own = reloaded(first.state_dict()), reloaded(first.scheduler.state_dict())
    second, other = make()
    second.load_state_dict(copy.deepcopy(saved))
    second.scheduler.load_state_dict(own)
    assert trained(first, handle) == trained(second, other)
