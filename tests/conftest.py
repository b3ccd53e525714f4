"""Fixtures for every test."""

import os

import pytest
import torch
from support import kinds, pages, twin
from support.inside import start_without_registered
from support.self_tests import host_kernels, self_tests, untested  # noqa: F401, fixtures
from support.tape import Tape, not_emulated

from lrfused import backends

NO_GPU = not torch.cuda.is_available()
if NO_GPU:  # before anything imports triton
    os.environ.setdefault("TRITON_INTERPRET", "1")
    os.environ.setdefault("LRFUSED_EMULATE_CUDA", "1")

# On a busy machine threads wait for each other, spinning, much longer than they work. The tests
# that concern threads set their number themselves.
torch.set_num_threads(1)


@pytest.fixture(params=kinds.PARAMS)
def backend(request):
    """Return a backend's name; tensors are on a GPU for a parameter that ends in -gpu."""
    name, _, device = request.param.partition("-")
    if device and NO_GPU:
        pytest.skip("torch sees no CUDA device here")
    on_device = name in ("cuda", "triton")
    if on_device and not device and not NO_GPU:
        pytest.skip("with a GPU the kernels run on it, and are not emulated")
    if on_device and not device and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("torch itself does not fuse with ATEN_CPU_CAPABILITY=default, and GPUs do")
    reason = backends.available()[name]
    if reason is not None:
        pytest.skip(f"the {name} backend is not available: {reason}")
    with twin.on("cuda" if device else "cpu"):
        yield name


def pytest_collection_modifyitems(config, items):
    """Leave out the backends that a test's marker does not name."""
    outside = {item for item in items if kinds.left_out(item)}
    config.hook.pytest_deselected(items=[*outside])
    items[:] = [item for item in items if item not in outside]


@pytest.fixture(params=["triton", "cuda"], scope="session")
def device(request):
    """Return the name of a backend that runs the schedule on a device, emulated here."""
    if why := not_emulated(request.param):
        pytest.skip(f"{request.param}: {why}")
    return request.param


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Return a folder that all of pytest's processes share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    """Run a page in an empty folder; leave torch's generator and the backends as they are."""
    start_without_registered(monkeypatch)

    def run(page):
        monkeypatch.chdir(tmp_path)
        with torch.random.fork_rng():
            pages.run(page)
        return capsys.readouterr().out

    return run


@pytest.fixture
def tape(monkeypatch):
    """Stand in for a CUDA graph."""
    return Tape(monkeypatch)


@pytest.fixture
def threads():
    """Put torch's thread number back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# -- on a GPU ------------------------------------------------------------------------------------


def available(name):
    why = backends.available()[name]
    if why is not None:
        pytest.skip(f"backend {name}: {why}")
    return name


@pytest.fixture(params=["cuda", "triton"])
def kernels(request):
    """Return the name of a backend whose kernels run on the GPU."""
    return available(request.param)


@pytest.fixture
def cuda():
    """Return the CUDA backend's name."""
    return available("cuda")


@pytest.fixture
def triton():
    """Return the Triton backend's name."""
    return available("triton")


@pytest.fixture
def tensors_are_on_the_gpu():
    """Make the tests' tensors there."""
    with twin.on("cuda"):
        yield


@pytest.fixture
def no_sync():
    """Return a function; after its call, a wait of the host for the device raises."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")
