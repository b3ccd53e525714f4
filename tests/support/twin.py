"""FusedDecaySGD beside its oracle: same values, same gradients, compared as integers."""

import contextlib
import copy
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
import torch
from cases import TORCH_IS_ORACLE, Schedule, with_lr
from torch import Tensor

from lrfused import FusedDecaySGD
from lrfused.reference import ReferenceDecaySGD
from support.bits import assert_same_bits, assert_same_rates

_device = torch.device("cpu")  # of all tensors that a test draws


@contextlib.contextmanager
def on(device: str) -> Iterator[None]:
    """Draw on a device in the meantime."""
    global _device
    before, _device = _device, torch.device(device)
    yield
    _device = before


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Draw real or complex numbers over some powers of two, none of them zero."""
    draw = _drawn_once if math.prod(shape) < 1100 else _drawn
    return draw(shape, dtype, seed).to(_device, copy=True)


def _drawn(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_complex:
        return torch.view_as_complex(_drawn((*shape, 2), torch.float64, seed)).to(dtype)
    values = torch.randn(shape, dtype=torch.float64, generator=generator)
    powers = torch.randint(-5, 3, shape, generator=generator)
    values = (values * 2.0**powers).to(dtype)
    return torch.where(values == 0, torch.ones_like(values), values)


_drawn_once = functools.lru_cache(10_000)(_drawn)


def same_layout(tensor: Tensor) -> Tensor:
    """Copy a tensor with its whole storage: offset, strides, holes and all; a sparse one as is."""
    if tensor.layout != torch.strided:
        return tensor.detach().clone().to(_device)
    storage = tensor.detach().untyped_storage().clone().to(device=_device)
    copied = torch.empty(0, dtype=tensor.dtype, device=_device)
    copied.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
    return torch._neg_view(copied) if tensor.is_neg() else copied


def leaf(tensor: Tensor) -> Tensor:
    """Copy a tensor into a parameter of the same layout."""
    return same_layout(tensor).requires_grad_()


# From torch 2.10 on a gradient may be of another dtype than its parameter.
OTHER_DTYPES = hasattr(Tensor, "grad_dtype")
other_dtypes = pytest.mark.skipif(not OTHER_DTYPES, reason="this torch has no Tensor.grad_dtype")


def allow_gradient(p: Tensor, dtype: torch.dtype) -> torch.dtype:
    """Let a parameter's gradient be of a dtype; return the one it may have."""
    p.grad = None
    if not OTHER_DTYPES:
        return p.dtype
    p.grad_dtype = dtype
    return dtype


def sgd(params: Any, **hyper: Any) -> torch.optim.SGD:
    """Build the oracle for fp32 and fp64: torch's for-loop."""
    return torch.optim.SGD(params, foreach=False, fused=False, **hyper)


def oracle(params: Any, dtype: torch.dtype, **hyper: Any) -> torch.optim.Optimizer:
    """Build the oracle that holds for a dtype: on a GPU, torch for all."""
    if dtype in TORCH_IS_ORACLE or _device.type != "cpu":
        return sgd(params, **hyper)
    return ReferenceDecaySGD(params, **hyper)


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def momentum(optimizer: torch.optim.Optimizer, param: Tensor) -> Tensor | None:
    """Read a momentum buffer without making a state entry."""
    return optimizer.state.get(param, {}).get("momentum_buffer")


def assert_same_state(
    ours: torch.optim.Optimizer, theirs: torch.optim.Optimizer, when: str = ""
) -> None:
    """Fail if a parameter, a momentum buffer or a rate of two optimizers differs."""
    assert_same_rates(rates(ours), rates(theirs), f"{when} rates")
    groups = zip(ours.param_groups, theirs.param_groups, strict=True)
    for number, (our_group, their_group) in enumerate(groups):
        pairs = zip(our_group["params"], their_group["params"], strict=True)
        for index, (mine, other) in enumerate(pairs):
            where = f"{when} group {number} parameter {index} of shape {tuple(other.shape)}"
            assert_same_bits(mine, other, where)
            got, want = momentum(ours, mine), momentum(theirs, other)
            assert (got is None) == (want is None), f"{where}: momentum {got} is not {want}"
            if want is not None:
                assert_same_bits(got, want, f"{where}: momentum")


def snapshot(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Copy all that a step may change."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    handle = getattr(optimizer, "scheduler", None)
    return {
        "params": [p.detach().clone() for p in params],
        "momentum": [copy.deepcopy(momentum(optimizer, p)) for p in params],
        "rates": [float(rate) for rate in rates(optimizer)],
        "epoch": None if handle is None else handle.last_epoch,
        "handle": None if handle is None else copy.deepcopy(handle.state_dict()),
    }


def assert_unchanged(optimizer: torch.optim.Optimizer, before: dict[str, Any]) -> None:
    """Fail if anything differs from a snapshot taken before."""
    after = snapshot(optimizer)
    assert len(after["params"]) == len(before["params"])
    for index, (now, then) in enumerate(zip(after["params"], before["params"], strict=True)):
        assert_same_bits(now, then, f"parameter {index} was changed")
    for index, (now, then) in enumerate(zip(after["momentum"], before["momentum"], strict=True)):
        assert (now is None) == (then is None), f"momentum {index} was {then}, is {now}"
        if then is not None:
            assert_same_bits(now, then, f"momentum {index} was changed")
    assert_same_rates(after["rates"], before["rates"], "rates were changed")
    assert after["epoch"] == before["epoch"]
    assert after["handle"] == before["handle"]


class Twin:
    """One FusedDecaySGD and one oracle over copies of the same values, in one group."""

    def __init__(
        self,
        values: Iterable[Tensor],
        backend: str,
        hyper: dict[str, Any] | None = None,
        schedule: Sequence[Schedule] = (),
    ) -> None:
        values = list(values)
        self.dtype = values[0].dtype
        self.mine = [leaf(value) for value in values]
        self.other = [leaf(value) for value in values]
        hyper = with_lr(hyper or {})
        ours = [case.ours() for case in schedule] or None
        self.opt = FusedDecaySGD(self.mine, backend=backend, schedule=ours, **hyper)
        self.oracle = oracle(self.other, self.dtype, **hyper)
        self.schedulers = [case.torchs(self.oracle) for case in schedule]
        self.steps = 0

    @property
    def both(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        return self.opt, self.oracle

    def give(self, grads: Sequence[Tensor | None]) -> None:
        """Hand both the same gradients, each its own copy."""
        for params in (self.mine, self.other):
            for param, grad in zip(params, grads, strict=True):
                param.grad = None if grad is None else same_layout(grad)

    def draw(self, missing: Sequence[int] = ()) -> list[Tensor | None]:
        """Draw a gradient for each parameter but the missing."""
        return [
            None
            if index in missing
            else numbers(*param.shape, dtype=param.dtype, seed=1000 * self.steps + index + 1)
            for index, param in enumerate(self.mine)
        ]

    def step(self, grads: Sequence[Tensor | None] | None = None) -> None:
        """Step both with the same gradients, then compare everything."""
        grads = self.draw() if grads is None else grads
        self.give(grads)
        self.opt.step()
        self.oracle.step()
        for scheduler in self.schedulers:
            scheduler.step()
        self.steps += 1
        self.check()
        for param, grad in zip(self.mine, grads, strict=True):
            assert (param.grad is None) == (grad is None)
            if grad is not None:
                assert_same_bits(param.grad, grad, "a gradient was modified")

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def check(self) -> None:
        assert_same_state(self.opt, self.oracle, f"after step {self.steps},")
