"""The table of supported versions is of all promised ones, and all of it is green."""

import re

import pytest
from matrix import BEGIN, END, ENVIRONMENTS, PAGE, counts_of


def rows():
    _, rest = PAGE.read_text().split(BEGIN)
    block, _ = rest.split(END)
    lines = [line for line in block.splitlines() if line.startswith("| 3.")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_promised_version_was_run():
    found = [(python.rpartition(".")[0], torch.partition("+")[0]) for python, torch, *_ in rows()]
    assert len(found) == len(ENVIRONMENTS)
    for (python, torch), (ran, with_torch) in zip(ENVIRONMENTS, found, strict=True):
        assert python == ran
        assert not torch or torch == with_torch
    (*_, before), (*_, newest) = found[-2:]
    assert tuple(map(int, newest.split("."))) > tuple(map(int, before.split(".")))


def test_every_row_is_green():
    for _, _, _, verified, tests, _ in rows():
        assert verified == "all equal, bit for bit"
        assert re.match(r"\d{4,} passed", tests)
        assert "failed" not in tests


@pytest.mark.parametrize(
    ("printed", "counts"),
    [
        ("....\n7 passed in 0.21s", "7 passed"),
        ("== 3 failed, 7 passed, 1 skipped in 2.50s ==\n", "3 failed, 7 passed, 1 skipped"),
        ("12 passed, 3 skipped in 75.21s (0:01:15)", "12 passed, 3 skipped"),
        ("ImportError: no", "no test"),
    ],
)
def test_pytests_last_line_is_read(printed, counts):
    assert counts_of(printed) == counts
