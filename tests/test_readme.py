"""The README's figures and the pictures are the newest measured; test_docs.py runs its code."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def draw(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(BENCHMARKS)
    import draw

    return draw


@pytest.mark.parametrize("script", ["readme.py", "draw.py"])
def test_the_newest_figures_are_shown(script):
    command = [sys.executable, BENCHMARKS / script, "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"run benchmarks/{script}\n{done.stdout}{done.stderr}"


def test_every_picture_has_its_unit_its_date_and_its_device(draw):
    found, _ = draw.newest()
    for name in draw.wanted(found):
        words = " ".join(re.findall(r">([^<]+)</text>", (draw.RESULTS / name).read_text()))
        assert re.search(r"\b(ms|us|MB)\b", words), name
        assert found["date"][:10] in words, name
        assert found["device"]["cpu"] in words, name


def test_pictures_of_other_results_are_noticed(draw, tmp_path):
    for path in draw.RESULTS.glob("*.json"):
        shutil.copy(path, tmp_path)
    assert set(draw.undrawn(tmp_path)) == draw.wanted(draw.newest(tmp_path)[0])
    draw.draw(tmp_path)
    assert draw.undrawn(tmp_path) == []
    newest = max(
        tmp_path.glob("step-*.json"), key=lambda path: json.loads(path.read_text())["date"]
    )
    newest.write_text(newest.read_text().replace('"torch for-loop"', '"torch  for-loop"'))
    assert draw.undrawn(tmp_path)
    (tmp_path / "of-old.svg").write_text("<svg/>")
    draw.draw(tmp_path)
    assert draw.undrawn(tmp_path) == []
    assert not (tmp_path / "of-old.svg").exists()


def test_every_test_and_benchmark_it_names_exists():
    text = (ROOT / "README.md").read_text()
    names = re.findall(r"`(test_[\w*]+\.py)`", text)
    assert len(names) > 20
    for name in names:
        assert list((ROOT / "tests").glob(name)), name
    for name in re.findall(r"`(benchmarks/\w+\.py)`", text):
        assert (ROOT / name).exists(), name


def test_every_link_leads_to_a_file():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / "README.md").read_text())
    assert len(links) > 30
    for link in links:
        assert (ROOT / link).exists(), link
