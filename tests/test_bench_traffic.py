"""The bytes that the documentation states are those of the tensors that a step has."""

import json

import pytest

from lrfused.commands.bench import shapes, traffic

SHAPES = [(64, 9), (7,), (33, 3, 3)]
# moved, kept
CLIPPING = {"clip_grad_norm_, then step": (32, 8), "max_grad_norm": (24, 8)}
MASTERS = {
    "fp32 masters by hand": (32, 14),
    "master_weights=True": (20, 10),
    "master_weights='remainder'": (18, 8),
    "master_weights=False": (10, 4),
}


@pytest.mark.parametrize(
    ("build", "want"), [(traffic.clipping, CLIPPING), (traffic.masters, MASTERS)]
)
def test_what_is_moved_and_kept_is_counted_from_the_tensors(build, want):
    field = build(SHAPES)
    sizes = {
        c.name: (sum(c.traffic().values()), traffic._size(c.kept()) / c.elements) for c in field
    }
    assert sizes == want


def test_it_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shapes, "resnet50", lambda: SHAPES)
    path = tmp_path / "traffic.json"
    traffic.run(0, path, checkout=tmp_path)
    found = json.loads(path.read_text())["cases"]
    assert [len(case["contenders"]) for case in found.values()] == [2, 4]
    assert "max_grad_norm                  24 B moved,   8 B kept" in capsys.readouterr().out


def test_other_bits_are_not_timed(monkeypatch):
    right = traffic.clipped_inside

    def wrong(case, backend="auto"):
        made = right(case, backend)
        if backend == "auto":
            made.parameters[0].data.mul_(1.5)
        return made

    monkeypatch.setattr(traffic, "clipped_inside", wrong)
    with pytest.raises(AssertionError, match="max_grad_norm is not max_grad_norm to the bit"):
        traffic.clipping(SHAPES)
