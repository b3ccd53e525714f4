"""The fast tier of tests, which `make check` runs before a commit: some files for each package.

    python tests/support/tier.py    # prints the files, for pytest

"lrfused" stands for the modules beside the packages, and for whole runs.
"""

from pathlib import Path

PACKAGES = {
    "lrfused": (
        "test_optimizer_api",
        "test_handle",
        "test_handle_in_schedulers",
        "test_layers",
        "test_beside_torch",
    ),
    "arithmetic": ("test_bits", "test_reference"),
    "checks": ("test_refusals",),
    "schedules": ("test_schedule_arguments", "test_recipes"),
    "program": ("test_compositions",),
    "rates": ("test_edges", "test_history"),
    "backends": ("test_swaps", "test_backend_contract", "test_add_a_backend"),
    "checkpoint": ("test_override",),
    "extension": ("test_extension",),
    "integrations": ("test_attached", "test_hooks"),
    "commands": ("test_info", "test_preview", "test_command_run_parts"),
}
TESTS = Path(__file__).resolve().parents[1]


def files() -> list[str]:
    """Return the paths of the tier's files."""
    return [str(TESTS / f"{name}.py") for names in PACKAGES.values() for name in names]


if __name__ == "__main__":
    print(*files(), sep="\n")
