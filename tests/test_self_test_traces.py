"""The self-test passes in every mode of torch's, and leaves no trace in the process."""

import contextlib
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from support.self_tests import (
    CPU,
    optimizer,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lrfused import backends
from lrfused.backends import trust

pytestmark = pytest.mark.usefixtures("untested")


@contextlib.contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def flushing():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush denormals")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


MODES = {
    "inference": torch.inference_mode,
    "no grad": torch.no_grad,
    "default device": default_device,
    "with device": lambda: torch.device("meta"),
    "default dtype": default_dtype,
    "fake tensors": FakeTensorMode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "deterministic": deterministic,
    "flushing": flushing,
    "anomaly": lambda: torch.autograd.detect_anomaly(check_nan=True),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_it_passes_in_every_mode(host_kernels, mode):
    with MODES[mode]():
        assert backends.trusted("auto", [CPU]) is backends.choose(host_kernels)
    assert trust.verdict(backends.choose(host_kernels), CPU).state == "passed"


def test_it_leaves_no_trace(host_kernels):
    calls = []
    hook = register_optimizer_step_pre_hook(lambda *args: calls.append(args))
    before = torch.get_rng_state(), random.getstate(), list(warnings.filters)
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, acc_events=True) as profiler:
        optimizer()
    hook.remove()
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), list(warnings.filters))
    assert calls == []
    assert not {event.key for event in profiler.key_averages()} & {"aten::add", "aten::mul_"}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc/self/task here")
def test_it_wakes_no_threads_of_torch():
    code = """
import os, torch
torch.set_num_threads(8)
from lrfused import backends
from lrfused.backends import self_test
torch.optim.SGD([torch.zeros(1)])
before = len(os.listdir("/proc/self/task"))
self_test.run(backends.choose("compiled"), torch.device("cpu"))
print(len(os.listdir("/proc/self/task")) - before)
"""
    if backends.available()["compiled"] is not None:
        pytest.skip(f"no compiled backend: {backends.available()['compiled']}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
