"""Run a function on several ranks, and there a training loop beside the same one with torch's."""

import contextlib
import multiprocessing
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lrfused import FusedDecaySGD
from lrfused.backends import reference
from support.bits import assert_same_bits, assert_same_rates
from support.twin import momentum, numbers, rates, sgd

if not dist.is_available():
    pytest.skip("torch without distributed", allow_module_level=True)

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

# The ranks of every test are forked from one clean process that has imported torch already.
multiprocessing.set_forkserver_preload(
    [
        "torch._dynamo",
        "torch.distributed.checkpoint.state_dict",
        "torch.distributed.fsdp",
        "torch.distributed.optim",
        "numpy",
        "lrfused",
    ]
)

COUNTS = (2, 4)
HYPER = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True}


def on_ranks(count: int, function: Callable[..., None], *args: Any) -> None:
    """Call function(*args) in `count` processes of one gloo group; raise what failed."""
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        torch.multiprocessing.start_processes(
            _rank, (count, store, function, args), count, start_method="forkserver"
        )


def _rank(rank: int, count: int, store: str, function: Callable[..., None], args: Any) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "TypedStorage is deprecated")  # of torch, until 2.9
    with group_of(rank, count, dist.FileStore(store, count)):
        function(*args)


@contextlib.contextmanager
def group_of(rank: int, count: int, store: Any) -> Iterator[None]:
    """Join a gloo group for the duration of the context."""
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.fixture
def alone() -> Iterator[None]:
    """Run the test as the only rank of a group."""
    with group_of(0, 1, dist.HashStore()):
        yield


def network(*, shard: bool = False, offload: bool = False) -> nn.Sequential:
    """Build a network whose layers divide unevenly over two ranks; of four, one has no part."""
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 2))
    with torch.no_grad():
        for seed, p in enumerate(model.parameters()):
            p.copy_(numbers(*p.shape, seed=seed))
    if not shard:
        return model
    options = {
        "mesh": init_device_mesh("cpu", (dist.get_world_size(),)),
        "offload_policy": CPUOffloadPolicy(pin_memory=False) if offload else OffloadPolicy(),
    }
    for layer in model[::2]:
        fully_shard(layer, **options)
    return fully_shard(model, **options)


def backward(model: nn.Module, step: int) -> None:
    """Set the gradients of this step's batch, another on every rank."""
    inputs = numbers(4, 6, seed=100 * step + dist.get_rank() + 7)
    model(inputs).square().mean().backward()


def parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


class Loops:
    """Two copies of a model, ours and torch's optimizer; `torchs` makes torch's scheduler."""

    def __init__(self, make: Callable[[], nn.Module], schedule: Any, torchs: Any, **hyper: Any):
        hyper = {**HYPER, **hyper}
        self.models = make(), make()
        self.opt = FusedDecaySGD(self.models[0].parameters(), schedule=schedule, **hyper)
        self.oracle = sgd(self.models[1].parameters(), **hyper)
        self.scheduler = torchs(self.oracle)
        self.steps = 0

    def step(self) -> None:
        for model in self.models:
            backward(model, self.steps)
        self.opt.step()
        self.oracle.step()
        self.scheduler.step()
        self.steps += 1
        self.check()
        for optimizer in (self.opt, self.oracle):
            optimizer.zero_grad()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def check(self) -> None:
        assert_same_run(self.opt, self.oracle, f"step {self.steps}")


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a DTensor, and any other tensor itself."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def assert_same_run(ours: Any, theirs: Any, when: str) -> None:
    """Fail if a rate, or this rank's part of a parameter or a momentum buffer, differs."""
    when = f"rank {dist.get_rank()}, {when}"
    assert_same_rates(rates(ours), rates(theirs), when)
    for mine, other in zip(parameters(ours), parameters(theirs), strict=True):
        pairs = [(mine, other), (momentum(ours, mine), momentum(theirs, other))]
        for what, (got, want) in zip(("parameter", "momentum"), pairs, strict=True):
            if got is None or want is None:
                assert got is want, f"{when}: {what} {got} is not {want}"
                continue
            assert hasattr(got, "placements") == hasattr(want, "placements"), when
            if hasattr(want, "placements"):
                assert got.placements == want.placements
                assert got.device_mesh == want.device_mesh
                assert got.stride() == want.stride()
            assert got.shape == want.shape
            assert_same_bits(local(got), local(want), f"{when}, {what} of shape {want.shape}")


@contextlib.contextmanager
def without_the_reference() -> Iterator[None]:
    """Fail where a parameter is updated one by one."""
    error = AssertionError("a parameter went to the reference")
    with mock.patch.object(reference, "update_own", side_effect=error):
        yield
