"""The fast tier of tests, which `make check` runs before a commit: some files for each room.

    python tests/support/tier.py    # prints the files, for pytest

A room is a package in lrfused; "house" is the modules beside them and whole runs.
"""

from pathlib import Path

ROOMS = {
    "house": ("test_optimizer_api", "test_rooms", "test_beside_torch"),
    "arithmetic": ("test_bits", "test_reference"),
    "schedules": ("test_schedule_arguments", "test_recipes"),
    "program": ("test_compositions",),
    "rates": ("test_edges", "test_history"),
    "backends": ("test_refusals", "test_swaps", "test_backend_contract", "test_add_a_backend"),
    "checkpoint": ("test_override",),
    "extension": ("test_extension",),
    "integrations": ("test_attached", "test_hooks"),
    "commands": ("test_info", "test_preview"),
}
TESTS = Path(__file__).resolve().parents[1]


def files() -> list[str]:
    """Return the paths of the tier's files."""
    return [str(TESTS / f"{name}.py") for names in ROOMS.values() for name in names]


if __name__ == "__main__":
    print(*files(), sep="\n")
