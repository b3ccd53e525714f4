"""What every test may ask for."""

import pytest
import torch
from cases import BACKENDS

from lrfused import backends

# On a busy machine threads wait for each other, spinning, much longer than they work. The tests
# that concern threads set their number themselves.
torch.set_num_threads(1)


@pytest.fixture(params=BACKENDS)
def backend(request):
    reason = backends.available()[request.param]
    if reason is not None:
        pytest.skip(f"the {request.param} backend is not available: {reason}")
    return request.param


@pytest.fixture
def threads():
    """Put torch's thread number back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
