"""Self-tests run anew: fixtures, and faults that are planted in a backend's step."""

import types

import pytest
import torch

from lrfused import FusedDecaySGD, backends
from lrfused.backends import self_test, trust
from lrfused.backends.base import Backend
from support.inside import forget_verdicts, prefer
from support.twin import leaf, numbers

CPU = torch.device("cpu")
HOST_KERNELS = ("compiled", "cuda", "triton")


@pytest.fixture
def untested(monkeypatch):
    """Forget all verdicts and warnings, as in a new process."""
    forget_verdicts(monkeypatch)


@pytest.fixture(params=HOST_KERNELS)
def host_kernels(request, monkeypatch):
    """Return the name of a backend with kernels that run on the CPU; "auto" prefers it there."""
    why = backends.available()[request.param]
    if why is not None or not trust.is_tested(backends.choose(request.param), CPU):
        pytest.skip(f"{request.param} has no kernels for the CPU here: {why}")
    if request.param != "compiled" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("torch itself does not fuse with ATEN_CPU_CAPABILITY=default, and GPUs do")
    prefer(monkeypatch, request.param, "reference")
    return request.param


@pytest.fixture
def self_tests(monkeypatch):
    """Count the self-tests."""
    counted = []
    run = self_test.run

    def counting(backend, device):
        counted.append((backend.name, device))
        return run(backend, device)

    monkeypatch.setattr(self_test, "run", counting)
    return counted


def optimizer(backend="auto"):
    return FusedDecaySGD([leaf(numbers(33))], lr=0.1, momentum=0.9, backend=backend)


def pretend_backend(name):
    """Return a backend with kernels for CUDA that make no step."""
    own = {
        "name": name,
        "Program": types.SimpleNamespace(runs_on=lambda device: device.type == "cuda"),
        "step": None,
    }
    return type("Pretend", (Backend,), own)()


# -- faults --------------------------------------------------------------------------------------


def flip(flat, index):
    width = {8: torch.int64, 4: torch.int32, 2: torch.int16}[flat.dtype.itemsize]
    flat.view(width)[index] ^= 1


def params_of(groups):
    return [p for group in groups for p in group["params"]]


def wrong_rounding(right, calls, groups, state, program, advance, scaling):
    done = right(groups, state, program, advance, scaling)
    if calls == 1:
        flip(next(p for p in params_of(groups) if p.dtype == torch.bfloat16), 70)
    return done


def failed_launch(right, calls, *rest):
    raise RuntimeError("no kernel image is available\nfor execution on the device")


def plant_in_step(monkeypatch, name, fault):
    module = backends.choose(name)
    right, calls = module.step, iter(range(10**6))
    monkeypatch.setattr(module, "step", lambda *args: fault(right, next(calls), *args))
