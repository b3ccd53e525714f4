"""The kinds of backends that a test runs on: every kind, unless a marker names some, and why.

    pytestmark = pytest.mark.backends("host", reason="threads are the host's")

The fixture `backend` is a product of all kinds; `left_out` takes away what a marker does not name.
The marker nearest to the test counts, so that one test of a file may run on more, or on fewer.
"""

import pytest

KINDS = {
    "host": ("compiled", "reference"),
    "emulated": ("triton", "cuda"),  # the kernels, run on the CPU where there is no GPU
    "gpu": ("cuda-gpu", "triton-gpu"),
}
PARAMS = [
    pytest.param(name, marks=[pytest.mark.gpu] if kind == "gpu" else [])
    for kind, names in KINDS.items()
    for name in names
]
_KIND = {name: kind for kind, names in KINDS.items() for name in names}


def named(marker: pytest.Mark) -> set[str]:
    """Return the kinds that a marker names. Raises UsageError for an unknown one, or no reason."""
    unknown = set(marker.args) - set(KINDS)
    if unknown or not marker.args:
        raise pytest.UsageError(f"backends(...) takes kinds of {[*KINDS]}, got {marker.args}")
    if set(marker.kwargs) != {"reason"} or not marker.kwargs["reason"]:
        raise pytest.UsageError(f"backends{marker.args} must have a reason, and nothing else")
    return set(marker.args)


def left_out(item: pytest.Item) -> bool:
    """Return whether a test's marker leaves out the backend that this instance of it runs on."""
    marker = item.get_closest_marker("backends")
    if marker is None:
        return False
    kinds = named(marker)
    backend = item.callspec.params.get("backend") if hasattr(item, "callspec") else None
    return backend in _KIND and _KIND[backend] not in kinds
