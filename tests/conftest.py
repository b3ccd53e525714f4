"""What every test may ask for."""

import os

import pytest
import torch
import twin
from cases import BACKENDS, ON_GPU, ON_TRITON

from lrfused import backends

NO_GPU = not torch.cuda.is_available()
if NO_GPU:  # before anything imports triton
    os.environ.setdefault("TRITON_INTERPRET", "1")

# On a busy machine threads wait for each other, spinning, much longer than they work. The tests
# that concern threads set their number themselves.
torch.set_num_threads(1)


@pytest.fixture(params=[*BACKENDS, pytest.param("triton-gpu", marks=pytest.mark.gpu)])
def backend(request):
    """Name a backend; tensors are on a GPU where it says so."""
    name, _, device = request.param.partition("-")
    if device and NO_GPU:
        pytest.skip("torch sees no CUDA device here")
    if name == "triton" and not device and not NO_GPU:
        pytest.skip("with a GPU the Triton backend runs compiled, not in the interpreter")
    if request.param == "triton" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("torch itself does not fuse with ATEN_CPU_CAPABILITY=default, and Triton does")
    reason = backends.available()[name]
    if reason is not None:
        pytest.skip(f"the {name} backend is not available: {reason}")
    with twin.on("cuda" if device else "cpu"):
        yield name


def pytest_collection_modifyitems(config, items):
    """Leave out, for Triton, what concerns the host alone or would take too long."""
    left_out = []
    for item in items:
        backend = item.callspec.params.get("backend") if hasattr(item, "callspec") else None
        picked = {"triton": ON_TRITON, "triton-gpu": ON_GPU}.get(backend)
        if picked is not None and item.path.stem not in picked:
            left_out.append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture
def tape(monkeypatch):
    """Stand in for a CUDA graph."""
    from tape import Tape  # here, since it imports triton

    return Tape(monkeypatch)


@pytest.fixture
def threads():
    """Put torch's thread number back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
