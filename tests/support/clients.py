"""Import a client, and compare its steps with ours and with torch.optim.SGD."""

import importlib
import warnings
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from support import bare_torchvision
from support.bits import assert_same_bits, assert_same_rates
from support.twin import snapshot


def package(name: str, *modules: str) -> Any:
    """Import a client and its modules; skip the tests of a file where it is missing."""
    if find_spec(name) is None:
        pytest.skip(f"the client {name} is not installed", allow_module_level=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client about its own dependencies
        bare_torchvision.package()
        for module in modules:
            importlib.import_module(f"{name}.{module}")
        return importlib.import_module(name)


class Steps(list):
    """Parameters, momentum buffers and rates after each step of a client."""

    def add(self, optimizer: torch.optim.Optimizer) -> None:
        self.append(snapshot(optimizer))

    @property
    def rates(self) -> list[list[float]]:
        return [step["rates"] for step in self]


def assert_same_steps(ours: Steps, theirs: Steps) -> None:
    """Fail at the first step after which a bit differs, or if no rate ever changed."""
    assert len(ours) == len(theirs) > 1
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        when = f"step {number}"
        assert_same_rates(mine["rates"], other["rates"], f"{when}, rates")
        for what in ("params", "momentum"):
            for got, want in zip(mine[what], other[what], strict=True):
                assert_same_bits(got, want, f"{when}, {what}")
    assert len({tuple(rates) for rates in ours.rates}) > 1
