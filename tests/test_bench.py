"""The benchmark validates before it times, and refuses to time other bits."""

import argparse
import json
import sys
from dataclasses import replace

import pytest
import torch

from lrfused.commands import bench
from lrfused.commands.bench import (
    cases,
    contenders,
    footprint,
    report,
    rivals,
    rounds,
    run,
    shapes,
    validate,
)
from lrfused.commands.bench.numbers import POOL, Numbers
from lrfused.commands.main import main

FP32 = cases.Case("tiny", "tiny fp32", [(3, 5), (7,), (1000,)], torch.float32)
BF16 = cases.Case("tiny-bf16", "tiny bf16", [(3, 5), (7,), (1000,)], torch.bfloat16)
TORCHS = [contenders.FOR_LOOP, contenders.FOREACH, contenders.FUSED]
OTHERS = {
    "optax on JAX": "optax",
    "torch-optimi": "optimi",
    "flashoptim": "flashoptim",
}


def by_name(result):
    return {row["name"]: row for row in result["rows"]}


def test_the_names_are_those_of_the_cases():
    assert tuple(cases.CASES) == bench.STEPS
    assert set(bench.QUICK) < set(bench.CASES)


@pytest.mark.parametrize(
    ("model", "tensors", "elements"),
    [
        (shapes.resnet50, 161, 25_557_032),
        (shapes.vit_l16, 296, 304_326_632),
        (shapes.gpt2_medium, 292, 354_823_168),
        (shapes.many_small, 10_000, 640_000),
        (shapes.one_large, 1, 100_000_000),
    ],
)
def test_the_shapes_are_those_of_the_published_models(model, tensors, elements):
    assert len(model()) == tensors
    assert shapes.elements(model()) == elements


def test_numbers_depend_on_seed_and_turn_alone():
    def drawn(seed, turn, size=POOL + 9):
        tensors = [torch.empty(5), torch.empty(size)]
        Numbers(torch.float32, seed).fill(tensors, turn)
        return torch.cat(tensors)

    first = drawn(1, 0)
    assert torch.equal(first, drawn(1, 0))
    assert torch.equal(first[:14], first[-14:])  # past the pool's end it begins again
    for other in (drawn(1, 1), drawn(2, 0)):
        assert (first == other).sum() < 100


def test_all_that_compute_the_update_are_timed():
    result = rounds.run(FP32, 0, [contenders.LRFUSED, *TORCHS])
    rows = by_name(result)
    assert list(rows) == [contenders.LRFUSED, *TORCHS]
    assert rows[contenders.LRFUSED]["ratio"] == 1
    for row in rows.values():
        assert row["ratio"] > 0
        assert row["not_timed"] is None
        assert row["samples"] == rounds.FEWEST_ROUNDS
        assert row["distance"]["oracle"] == contenders.FOR_LOOP
    for name in (contenders.LRFUSED, contenders.FOR_LOOP, contenders.FOREACH):
        assert rows[name]["distance"]["differing"] == 0
    assert result["in_place_gb_per_s"] > 0


def test_a_ratio_is_of_the_same_rounds(monkeypatch):
    monkeypatch.setattr(rounds, "HELD_AT_ONCE", 0)  # each rival has a field of its own
    slower = iter((1, 5, 3))

    def interleave(calls, **_):
        ours = next(slower)
        return {name: [2 * ours] * 4 if name in TORCHS else [ours] * 4 for name in calls}

    monkeypatch.setattr(rounds, "interleave", interleave)
    result = rounds.run(FP32, 0, TORCHS)
    rates = report.rates(result)
    ratios = {name: rate["ratio_to_lrfused"] for name, rate in rates.items()}
    assert ratios == {contenders.LRFUSED: 1, **dict.fromkeys(TORCHS, 2)}
    bytes_of_yardstick = 8 * (1 << 20)
    share = FP32.elements * FP32.bytes_per_element / bytes_of_yardstick
    shares = {name: rate["share_of_in_place"] for name, rate in rates.items()}
    assert shares == {contenders.LRFUSED: share, **dict.fromkeys(TORCHS, share / 2)}


def test_large_contenders_change_places(monkeypatch):
    changed, real = [], rounds.change_places

    def change(everyone):
        def pointers():
            return [[t.data_ptr() for t in one.tensors()] for one in everyone]

        before = pointers()
        real(everyone)
        assert pointers() == before[1:] + before[:1]
        assert len(before[0]) == 3 * len(FP32.shapes)
        changed.append(len(everyone))

    monkeypatch.setattr(rounds, "change_places", change)
    rounds.run(FP32, 0, TORCHS)
    assert changed == []
    monkeypatch.setattr(rounds, "PLACES_MATTER", 0)
    rows = by_name(rounds.run(FP32, 0, TORCHS))
    assert changed == [1 + len(TORCHS)] * rounds.FEWEST_ROUNDS
    assert all(row["samples"] == rounds.FEWEST_ROUNDS for row in rows.values())


def test_a_field_is_split_where_memory_does_not_hold_it(monkeypatch):
    monkeypatch.setattr(rounds, "HELD_AT_ONCE", 0)
    rows = by_name(rounds.run(FP32, 0, [contenders.LRFUSED, *TORCHS]))
    assert rows[contenders.LRFUSED]["samples"] == len(TORCHS) * rounds.FEWEST_ROUNDS
    assert rows[contenders.FUSED]["samples"] == rounds.FEWEST_ROUNDS


def test_a_case_that_memory_cannot_hold_says_so(monkeypatch):
    monkeypatch.setattr(rounds, "_available", lambda: 17)
    for row in rounds.run(FP32, 0, TORCHS)["rows"]:
        assert row["not_timed"].endswith("GB are free")


def test_lrfused_with_other_bits_is_an_error_and_nothing_is_timed(monkeypatch):
    def wrong(case):
        made = contenders.fused_decay_sgd(case)
        right = made.step
        made.step = lambda: (right(), made.parameters[0].data[0, 0].mul_(1 + 2**-23))
        return made

    monkeypatch.setitem(rounds.CONTENDERS, contenders.LRFUSED, wrong)
    monkeypatch.setattr(rounds, "interleave", pytest.fail)
    with pytest.raises(AssertionError, match="tiny fp32: lrfused is not torch for-loop to the bit"):
        rounds.run(FP32, 0)


def test_other_bits_end_the_run(monkeypatch, capsys):
    def differ(*_):
        raise AssertionError("tiny: lrfused is not the oracle to the bit")

    monkeypatch.setattr(run, "measure", differ)
    assert main(["bench", "--case", "small"]) == 1
    assert "NOT TIMED: tiny: lrfused is not" in capsys.readouterr().err


@pytest.mark.parametrize("case", [FP32, BF16], ids=lambda case: case.name)
def test_a_competitor_of_another_update_is_named_and_not_timed(monkeypatch, case):
    def without_momentum(case):
        parameters = case.parameters()
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.01)
        return contenders.OfTorch(parameters, optimizer, contenders.followed(optimizer))

    monkeypatch.setitem(rounds.CONTENDERS, "another", without_momentum)
    row = by_name(rounds.run(case, 0, ["another"]))["another"]
    assert row["not_timed"].startswith("computes something else: ")
    assert "median" not in row


def broken(tensors):
    raise RuntimeError("no compiler\nand many lines about it")


def test_a_competitor_that_fails_is_a_row_with_the_error(monkeypatch):
    monkeypatch.setitem(rounds.CONTENDERS, "broken", broken)
    row = by_name(rounds.run(FP32, 0, ["broken"]))["broken"]
    assert row == {"name": "broken", "not_timed": "fails with RuntimeError: no compiler"}


def test_torchs_own_that_fails_ends_the_run(monkeypatch):
    monkeypatch.setitem(rounds.CONTENDERS, contenders.FOREACH, broken)
    with pytest.raises(RuntimeError, match="no compiler"):
        rounds.run(FP32, 0, [contenders.FOREACH])


def test_a_result_of_nan_is_another_update():
    def spoilt(case):
        made = contenders.fused_decay_sgd(case)
        made.parameters[1].data[3] = torch.nan
        return made

    with pytest.raises(contenders.Unable, match="computes something else"):
        validate.Truth.of(BF16).check("another", spoilt(BF16))


@pytest.mark.parametrize("piece", [1, 300, validate.PIECE])
def test_a_distance_is_that_of_all_pieces(monkeypatch, piece):
    def moved(case):
        made = contenders.fused_decay_sgd(case)
        right = made.results

        def results():
            parameters, momenta = right()
            bits = parameters[2].view(torch.int32)
            bits[[0, 299, 300]] += torch.tensor([1, -2, 3], dtype=torch.int32)
            momenta[0].view(torch.int32)[0, 1] += 1
            return parameters, momenta

        made.results = results
        return made

    monkeypatch.setattr(validate, "PIECE", piece)
    found = validate.Truth.of(FP32).check("another", moved(FP32))
    assert (found.differing, found.max_ulp) == (4, 3)
    assert 0 < found.share < 3 * 2**-23


@pytest.mark.parametrize("case", [FP32, BF16], ids=lambda case: case.name)
def test_neighbours_are_one_apart_across_zero(case):
    integer = validate.INTEGER[case.dtype]
    ordered = validate._ordered(torch.tensor([0, -1, 1], dtype=integer).view(case.dtype))
    lowest = torch.tensor([1 << (8 * case.dtype.itemsize - 1)]).to(integer).view(case.dtype)
    assert int(ordered[2] - ordered[0]) == 1
    assert int(ordered[0] - validate._ordered(lowest)[0]) == 1  # -0.0


def test_gradients_are_made_again_before_each_zeroed_step(monkeypatch):
    seen = []

    def watched(case):
        parameters = case.parameters()
        optimizer = torch.optim.SGD(parameters, **contenders.HYPER, foreach=False)
        step = contenders.followed(optimizer)

        def watch():
            seen.append(all(p.grad is not None for p in parameters))
            step()

        return contenders.OfTorch(parameters, optimizer, watch)

    monkeypatch.setitem(rounds.CONTENDERS, "watched", watched)
    cleared = []
    zero_grad = contenders.OfTorch.zero_grad
    monkeypatch.setattr(
        contenders.OfTorch, "zero_grad", lambda self: (cleared.append(1), zero_grad(self))
    )
    rounds.run(replace(FP32, zeroed=True), 0, ["watched"])
    steps = rounds.FEWEST_ROUNDS + 1
    assert seen == [True] * (validate.STEPS + steps)
    assert len(cleared) == 2 * steps  # lrfused's too
    assert all(case.zeroed for case in cases.GROWING)
    assert not any(case.zeroed for case in cases.CASES.values())


@pytest.mark.parametrize("case", [FP32, BF16], ids=lambda case: case.name)
@pytest.mark.parametrize(("name", "module"), OTHERS.items())
def test_competitors_that_are_installed_are_within_rounding(name, module, case):
    pytest.importorskip(module)
    row = by_name(rounds.run(case, 0, [name]))[name]
    assert row["not_timed"] is None, row


@pytest.mark.parametrize(("name", "module"), [*OTHERS.items(), ("schedulefree", "schedulefree")])
def test_a_competitor_that_is_not_installed_is_a_row_that_says_so(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    if module == "optax":
        monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(contenders.Unable, match=r"is not installed: pip install lrfused\[bench\]"):
        rivals.RIVALS[name](FP32)


@pytest.mark.parametrize("name", ["torch.compile, float lr", "torch.compile, tensor lr"])
def test_what_takes_minutes_to_compile_is_refused(name):
    with pytest.raises(contenders.Unable, match="minutes to compile 10,000 tensors"):
        rivals.RIVALS[name](cases.CASES["small"])


def test_the_peak_is_less_what_must_be_held():
    found = footprint.peak(contenders.LRFUSED, cases.CASES["resnet50"].shrunk(1000))
    assert found["not_measured"] is None
    assert found["beyond_mb"] < 500


def test_import_is_timed_beyond_torch(monkeypatch):
    monkeypatch.setattr(footprint, "IMPORTS", 1)
    assert 0 < footprint.import_ms() < 10_000


def test_a_whole_run_is_printed_and_kept(tmp_path, capsys):
    path = tmp_path / "bench.json"
    arguments = ["--case", "growth", "--shrink", "10000", "--threads", "1", "--json", str(path)]
    assert main(["bench", "--quick", *arguments]) == 0
    assert "equal bits" in capsys.readouterr().out
    found = json.loads(path.read_text())
    assert [step["tensors"] for step in found["growth"]] == [1, 1, 1, 1, 1, 10]
    assert found["commit"] is None
    assert found["versions"]["backend"] == contenders.fastest()
    assert found["options"]["shrink"] == 10_000


def test_the_shrinking_is_not_offered():
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    assert "--shrink" not in parser.format_help()


def test_a_wrong_case_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--case", "huge"])
    err = capsys.readouterr().err
    assert err.startswith("lrfused bench: argument --case: invalid choice: 'huge'")
    assert err.count("\n") == 1
