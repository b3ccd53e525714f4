"""Fixtures for the tests of clients."""

from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[2] / "docs" / "clients"


@pytest.fixture
def printed(printed):
    """Run a client's page, given its stem."""
    return lambda stem: printed(PAGES / f"{stem}.md")
