"""The documentation says what is so: its code runs, its quotations are verbatim, all is named."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pages
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

import lrfused

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"python", "cpp", "console", "text"}


def name(page):
    return str(page.relative_to(ROOT))


def printed(page, folder):
    runner = ROOT / "tests" / "pages.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", runner, page], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


WITH_CODE = [page for page in PAGES if any(block.runs for block in pages.blocks(page))]


@pytest.mark.parametrize("page", WITH_CODE, ids=name)
def test_the_code_of_a_page_runs_and_prints_what_it_says(page, tmp_path):
    printed(page, tmp_path)


def rate_after(steps, make):
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1, momentum=0.9)
    scheduler = make(optimizer)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return optimizer.param_groups[0]["lr"]


def test_the_readme_code_prints_torchs_rates(tmp_path):
    rates = [
        rate_after(3, lambda optimizer: CosineAnnealingLR(optimizer, T_max=100)),
        rate_after(3, lambda optimizer: OneCycleLR(optimizer, max_lr=0.5, total_steps=100)),
    ]
    assert [float(x) for x in printed(ROOT / "README.md", tmp_path).split()] == rates


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_run_or_quoted_verbatim_or_no_code(page):
    found = pages.blocks(page)
    assert 2 * len(found) == len(re.findall("^ *```", page.read_text(), re.MULTILINE))
    for block in found:
        assert block.language in LANGUAGES | {""} * (page.name == "README.md"), block
        if block.title is not None:
            source = textwrap.dedent((ROOT / block.title).read_text())
            quoted = textwrap.dedent(block.code).splitlines()
            assert contains(source.splitlines(), quoted), f"not verbatim: {block}"


def contains(lines, quoted):
    """Say whether `quoted` is a run of `lines`, all of which may be indented further."""
    for i in range(len(lines) - len(quoted) + 1):
        own = textwrap.dedent("\n".join(lines[i : i + len(quoted)])).splitlines()
        if own == quoted:
            return True
    return False


@pytest.mark.parametrize("public", sorted(lrfused.__all__))
def test_every_public_name_has_its_place(public):
    assert f"::: lrfused.{public}\n" in (ROOT / "docs" / "api.md").read_text()
    if public not in ("FusedDecaySGD", "Schedule", "fuse"):
        assert f"`{public}" in (ROOT / "docs" / "schedules.md").read_text()
