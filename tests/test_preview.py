"""lrfused preview draws torch's rates, evaluates nothing else, and refuses in one line."""

import builtins
import os
import subprocess
import sys

import pytest
import torch
from torch.optim import lr_scheduler

import lrfused
from lrfused.commands import preview
from lrfused.commands.arguments import CommandError
from lrfused.commands.main import main
from lrfused.commands.preview import marks, spec, terminal

SEQUENCE = "SequentialLR([LinearLR(0.01, 1.0, 10), CosineAnnealingLR(90)], milestones=[10])"


def test_a_call_is_read():
    want = lrfused.SequentialLR(
        [lrfused.LinearLR(0.01, 1.0, 10), lrfused.CosineAnnealingLR(90)], [10]
    )
    assert spec.read(SEQUENCE) == (want,)
    assert spec.read("[StepLR(30, gamma=-0.5), ExponentialLR(1)]") == (
        lrfused.StepLR(30, gamma=-0.5),
        lrfused.ExponentialLR(1),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CosineLR(3)", "no schedule is called CosineLR; did you mean "),
        ("open('x')", "no schedule is called open"),
        ("fuse(1)", "no schedule is called fuse"),
        ("StepLR", "StepLR needs its arguments"),
        ("StepLR(", "must be a call such as StepLR(30)"),
        ("StepLR()", "StepLR: "),
        ("StepLR(0)", "must be an integer of at least 1, got 0"),
        ("StepLR(2**99)", "got 2 ** 99"),
        ("StepLR(**{})", "may not hold **"),
        ("StepLR(*[3])", "got *[3]"),
        ("LambdaLR(lambda epoch: 1)", "what needs more goes into a file: config.py:NAME"),
        ("LambdaLR(StepLR.bind)", "got StepLR.bind"),
        ("__import__('os').system('false')", "got __import__('os').system('false')"),
        ("3", "schedule must be an lrfused schedule"),
        ("[]", "must be a schedule or a list of them"),
        ("(" * 500 + ")" * 500, "SPEC "),
        ("none.py:x", "must name a file that exists, got none.py"),
    ],
)
def test_what_is_refused(text, message, capsys):
    assert main(["preview", text]) == 2
    err = capsys.readouterr().err
    assert err.startswith("lrfused preview: SPEC")
    assert message in err
    assert err.count("\n") == 1


def test_a_file_is_read(tmp_path, capsys):
    path = tmp_path / "config.py"
    path.write_text(
        "from lrfused import LambdaLR\nname = 'x'\nrate = LambdaLR(lambda epoch: 0.5**epoch)\n"
    )
    assert main(["preview", f"{path}:rate", "--steps", "4"]) == 0
    assert "lr=0.1, 4 steps, 0.0125 to 0.1" in capsys.readouterr().out
    assert main(["preview", f"{path}:other"]) == 2
    assert "has no other; it has rate" in capsys.readouterr().err
    path.write_text("raise ValueError('no\\nway')")
    assert main(["preview", f"{path}:rate"]) == 2
    assert capsys.readouterr().err.endswith("raised ValueError: no\n")


def test_the_rates_are_torchs():
    rates, momenta = preview.trace(spec.read("OneCycleLR(0.5, 40)"), 0.1, 40)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.5, 40)
    for step in range(40):
        assert rates[step] == optimizer.param_groups[0]["lr"]
        assert momenta[step] == optimizer.param_groups[0]["momentum"]
        optimizer.step()
        if step < 39:
            scheduler.step()


@pytest.mark.parametrize(
    ("text", "steps", "places"),
    [
        (SEQUENCE, 101, [10, 100]),
        ("MultiStepLR([30, 80, 80])", 101, [30, 80]),
        ("CosineAnnealingWarmRestarts(5, 2)", 36, [5, 15, 35]),
        ("OneCycleLR(0.5, 40)", 40, [11]),
        ("warmup_stable_decay(100, 10, 20)", 101, [10, 80, 100]),
        ("ExponentialLR(0.9)", None, []),
    ],
)
def test_milestones_and_the_end(text, steps, places):
    (schedule,) = spec.read(text)
    assert marks.end(schedule) == steps
    assert sorted(step for step, _ in marks.marks(schedule, steps or 100)) == places


@pytest.mark.parametrize("name", spec.NAMES)
def test_every_schedule_can_be_drawn(name, capsys):
    arguments = {
        "StepLR": "3", "MultiStepLR": "[3, 5]", "ExponentialLR": "0.9", "CosineAnnealingLR": "9",
        "CosineAnnealingWarmRestarts": "4", "CyclicLR": "0.01, 0.1, 5", "OneCycleLR": "0.3, 20",
        "SequentialLR": "[StepLR(3), ConstantLR()], [4]", "ChainedScheduler": "[StepLR(3)]",
        "cosine_with_warmup": "20, 5", "inverse_sqrt": "4", "warmup": "StepLR(3), 4",
        "warmup_stable_decay": "20, 5, 5",
    }.get(name, "")  # fmt: skip
    needs_more = name in ("LambdaLR", "MultiplicativeLR", "ReduceLROnPlateau")
    assert main(["preview", f"{name}({arguments})"]) == 2 * needs_more
    assert ("lr=0.1" in capsys.readouterr().out) != needs_more


def test_a_plateau_is_left_out(capsys):
    assert main(["preview", "[ReduceLROnPlateau(), StepLR(3)]"]) == 0
    assert capsys.readouterr().err == "ReduceLROnPlateau depends on metrics: drawn without it\n"


def test_steps_after_the_last(capsys):
    assert main(["preview", "OneCycleLR(0.5, 40)", "--steps", "50"]) == 2
    assert capsys.readouterr().err.startswith("lrfused preview: --steps 50: Tried to step 41 times")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_pictures(suffix, tmp_path):
    path = tmp_path / f"rates.{suffix}"
    assert main(["preview", "OneCycleLR(0.5, 40)", "--log", "--out", str(path)]) == 0
    assert path.stat().st_size > 5_000


def test_a_picture_of_another_kind(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["preview", SEQUENCE, "--out", "rates.gif"])
    assert capsys.readouterr().err == (
        "lrfused preview: argument --out: must end in .png or .svg, got rates.gif\n"
    )


def test_without_matplotlib(tmp_path, capsys, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "figure" or name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["preview", SEQUENCE]) == 0
    assert main(["preview", SEQUENCE, "--out", str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err == (
        "lrfused preview needs matplotlib: pip install lrfused[plot]\n"
    )


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("braille", [True, False])
def test_the_plot_fits(width, braille):
    values = [(i % 700) / 700 for i in range(5_000)]
    lines = terminal.plot(values, [700], title="x" * 300, width=width, braille=braille)
    assert all(len(line) <= width for line in lines)
    assert braille or "".join(lines).isascii()


def test_a_rate_that_is_nowhere_finite_or_positive():
    for text, log in (("ConstantLR(1.0)", True), ("ConstantLR(1.0)", False)):
        if log:
            with pytest.raises(CommandError, match="--log needs a rate above 0"):
                preview.run(text, lr=0.0, log=log)
        else:
            assert preview.run(text, lr=0.0, log=log) == 0


def test_a_reader_that_has_read_enough_is_no_error():
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "lrfused", "preview", "StepLR(30)"]
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True) as process:
        os.close(writer)
        os.close(reader)  # before anything is written
        assert process.stderr.read() == ""
