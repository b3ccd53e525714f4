"""The documentation: its code runs, its quotations are verbatim, every public name is in it."""

import re
from pathlib import Path

import pytest
import torch
from support import bare_timm, pages
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

import lrfused

ROOT = Path(__file__).resolve().parent.parent
TOP = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "RELEASING.md"]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "cpp", "console", "diff", "text"}


def name(page):
    return str(page.relative_to(ROOT))


CLIENTS = sorted({*(ROOT / "docs" / "clients").glob("*.md")} - {ROOT / "docs/clients/index.md"})
WITH_CODE = [
    page
    for page in PAGES
    if page not in CLIENTS and any(block.runs for block in pages.blocks(page))
]


# Of Lightning about itself.
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning")
@pytest.mark.parametrize("page", WITH_CODE, ids=name)
def test_the_code_of_a_page_runs_and_prints_what_it_says(page, printed):
    if page.stem == "frameworks":
        for package in ("accelerate", "lightning", "transformers"):
            pytest.importorskip(package, reason="the page is about the package")
        if bare_timm.schedulers() is None:
            pytest.skip("the page is about the package timm")
    printed(page)


@pytest.mark.parametrize("page", CLIENTS, ids=name)
def test_a_clients_test_runs_its_page(page):
    path = f"tests/clients/test_{page.stem.replace('-', '_')}.py"
    test, found = (
        (ROOT / path).read_text(),
        [b for b in pages.blocks(page) if b.language == "python"],
    )
    assert found
    assert f'printed("{page.stem}")' in test or all(block.title == path for block in found)


def rate_after(steps, make):
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1, momentum=0.9)
    scheduler = make(optimizer)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return optimizer.param_groups[0]["lr"]


def test_the_readme_code_prints_torchs_rates(printed):
    rates = [
        rate_after(3, lambda optimizer: CosineAnnealingLR(optimizer, T_max=100)),
        rate_after(3, lambda optimizer: OneCycleLR(optimizer, max_lr=0.5, total_steps=100)),
    ]
    assert [float(x) for x in printed(ROOT / "README.md").split()] == rates


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_run_or_quoted_verbatim_or_no_code(page):
    found = pages.blocks(page)
    assert 2 * len(found) == len(re.findall("^ *```", page.read_text(), re.MULTILINE))
    for block in found:
        assert block.language in LANGUAGES, block
        if block.title is not None:
            assert f"\n{block.code}" in (ROOT / block.title).read_text(), f"not verbatim: {block}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_that_a_page_names_exists(page):
    folders = "lrfused|csrc|tests|benchmarks|examples|docs"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text()):
        assert (ROOT / path).exists(), path


def test_the_changelog_begins_with_the_version_that_is_there():
    newest = re.search(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] in (lrfused.__version__, "Unreleased")
    assert newest[1] == "Unreleased" or re.fullmatch(r" - \d{4}-\d\d-\d\d", newest[2])


def test_the_page_of_versions_promises_what_the_package_requires():
    page = (ROOT / "docs" / "versions.md").read_text()
    package = (ROOT / "pyproject.toml").read_text()
    (torch_from,) = re.findall(r'"torch>=([\d.]+)"', package.split("[project]")[1])
    (python_from,) = re.findall(r'requires-python = ">=([\d.]+)"', package)
    *_, python_to = re.findall(r"Python :: (3\.\d+)", package)
    assert f"| torch | {torch_from} and newer |" in page
    assert f"| Python | {python_from} to {python_to} |" in page


def test_every_room_is_on_the_map():
    the_map = (ROOT / "docs" / "contributing.md").read_text()
    for path in (ROOT / "lrfused").glob("*/__init__.py"):
        assert f"| `lrfused/{path.parent.name}/` |" in the_map


@pytest.mark.parametrize("public", sorted(lrfused.__all__))
def test_every_public_name_has_its_place(public):
    path = "fuse.fuse" if public == "fuse" else public  # not the module of that name
    assert f"::: lrfused.{path}\n" in (ROOT / "docs" / "api.md").read_text()
    if public not in ("FusedDecaySGD", "Schedule", "check_ranks", "fuse", "update_in_backward"):
        assert f"`{public}" in (ROOT / "docs" / "schedules.md").read_text()
