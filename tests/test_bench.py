"""The benchmark validates before it times, and refuses to time other bits."""

import json

import pytest
import torch

from lrfused import bench
from lrfused.__main__ import main
from lrfused.bench import contenders, run, shapes, timing


@pytest.fixture
def tiny(monkeypatch):
    """Shrink every case, and time a few rounds."""
    cases = [
        contenders.Case("resnet50", "tiny fp32", [(3, 5), (7,)], torch.float32),
        contenders.Case("resnet50-bf16", "tiny bf16", [(3, 5), (7,)], torch.bfloat16),
    ]
    monkeypatch.setattr(contenders, "CASES", cases)
    monkeypatch.setattr(shapes, "resnet50", lambda: [(9,)])
    monkeypatch.setattr(
        run, "interleave", lambda calls, seconds: timing.interleave(calls, seconds=0)
    )
    return cases


def test_the_names_are_those_of_the_cases():
    assert (*(case.name for case in contenders.CASES), "schedule") == bench.CASES


def test_it_validates_then_times(tiny, tmp_path, capsys):
    path = tmp_path / "bench.json"
    arguments = ["--case", "resnet50", "--case", "resnet50-bf16", "--json", str(path)]
    assert main(["bench", "--quick", "--threads", "1", *arguments]) == 0
    out = capsys.readouterr().out
    assert out.index("tiny fp32: validating") < out.index("timing ...") < out.index("competitor")
    found = json.loads(path.read_text())
    assert set(found["cases"]) == {"resnet50", "resnet50-bf16"}
    assert found["commit"] is None
    assert found["versions"]["backend"] == contenders.fastest()


def test_other_bits_are_not_timed(tiny, capsys, monkeypatch):
    right = contenders.fused_decay_sgd

    def wrong(parameters):
        made = right(parameters)
        made.step = lambda: (made.optimizer.step(), parameters[0].data[0, 0].mul_(1.5))
        return made

    monkeypatch.setattr(contenders, "fused_decay_sgd", wrong)
    monkeypatch.setattr(run, "interleave", pytest.fail)
    assert main(["bench", "--case", "resnet50"]) == 1
    assert "NOT TIMED: tiny fp32: lrfused is not torch for-loop to the bit" in (
        capsys.readouterr().err
    )


def test_a_wrong_case_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--case", "huge"])
    err = capsys.readouterr().err
    assert err.startswith("lrfused bench: argument --case: invalid choice: 'huge'")
    assert err.count("\n") == 1
