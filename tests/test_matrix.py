"""The table of supported versions is of all promised ones, and all of it is green."""

import json
import re

import pytest
from matrix import BEGIN, END, NAMES, PAGE, RESULTS, Failure, checked, table

FOUND = json.loads(RESULTS.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_every_promised_version_was_run_and_is_green(name):
    python, torch = NAMES[name]
    row = FOUND[name]
    assert row["Python"].startswith(f"{python}.")
    assert row["torch"].partition("+")[0] == (torch or row["torch"].partition("+")[0])
    assert row["verify"] == "all equal, bit for bit"
    assert re.match(r"\d{4,} passed", row["tests"])


def test_the_page_shows_what_was_found():
    _, rest = PAGE.read_text().split(BEGIN)
    block, _ = rest.split(END)
    assert block == table(FOUND)


@pytest.mark.parametrize(
    ("printed", "counts"),
    [
        ("....\n7 passed in 0.21s", "7 passed"),
        ("12 passed, 3 skipped in 75.21s (0:01:15)", "12 passed, 3 skipped"),
        ("== 12 passed, 4 deselected in 75.21s ==", "12 passed, 4 deselected"),
    ],
)
def test_pytests_counts_are_read(printed, counts):
    assert checked(printed) == counts


@pytest.mark.parametrize(
    "printed",
    ["3 failed, 7 passed in 2.50s", "1 error in 0.1s", "7 passed, 1 error in 2s", "ImportError"],
)
def test_what_did_not_pass_is_a_failure(printed):
    with pytest.raises(Failure):
        checked(printed)
