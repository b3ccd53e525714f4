"""Training loops and numbers of threads are timed after validation, and shown as measured."""

import json
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lrfused.commands.bench import (
    contenders,
    loop,
    models,
    report,
    rivals,
    run,
    scaling,
    tables,
    timing,
)
from lrfused.commands.main import main

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
MLP, CNN, DEEP = models.LESSONS


def by_name(result):
    return {row["name"]: row for row in result["rows"]}


@pytest.mark.parametrize(("lesson", "tensors"), [(MLP, 6), (CNN, 10), (DEEP, 202)])
def test_a_lesson_begins_the_same_and_leaves_the_random_state(lesson, tensors):
    state = torch.random.get_rng_state()
    (one, inputs), (another, same) = lesson.begin(), lesson.begin()
    assert torch.equal(state, torch.random.get_rng_state())
    assert len(list(one.parameters())) == tensors
    assert torch.equal(inputs, same)
    for p, q in zip(one.parameters(), another.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("lesson", models.LESSONS, ids=lambda lesson: lesson.name)
def test_torchs_own_and_lrfused_are_validated_and_timed(lesson):
    rows = by_name(loop.measure(lesson, 0, contenders.OWN))
    assert list(rows) == list(contenders.OWN)
    for name, row in rows.items():
        assert row["not_timed"] is None
        assert row["distance"]["oracle"] == contenders.FOR_LOOP
        assert name == contenders.FUSED or row["distance"]["differing"] == 0
        for part in loop.PARTS:
            assert row[part]["samples"] == loop.MIN_ROUNDS * loop.IN_A_ROW
        assert row["zero_grad"]["median"] < row["both"]["median"] < row["iteration"]["median"]


def test_an_iteration_trains_with_new_gradients():
    training = loop.Training(MLP, contenders.fused_decay_sgd)
    untrained, _ = MLP.begin()
    zero_grad, step, both, iteration = training.iterate()
    assert both == zero_grad + step < iteration
    trained, momenta = training.results()
    assert not any(map(torch.equal, untrained.parameters(), trained))
    assert all(momentum.any() for momentum in momenta)


def test_other_bits_in_training_are_an_error_and_nothing_is_timed(monkeypatch):
    def wrong(tensors):
        made = contenders.fused_decay_sgd(tensors)
        right = made.step
        made.step = lambda: (right(), made.parameters[0].data[0, 0].mul_(1 + 2**-23))
        return made

    monkeypatch.setitem(loop.CONTENDERS, contenders.LRFUSED, wrong)
    monkeypatch.setattr(loop, "orders", pytest.fail)
    with pytest.raises(AssertionError, match="lrfused is not torch for-loop to the bit"):
        loop.measure(MLP, 0, [contenders.LRFUSED])


def test_another_update_in_training_is_named_and_not_timed(monkeypatch):
    monkeypatch.setitem(loop.CONTENDERS, "another", contenders.without_decay)
    rows = by_name(loop.measure(MLP, 0, [contenders.LRFUSED, "another"]))
    assert rows["another"]["not_timed"].startswith("computes something else: ")
    assert rows[contenders.LRFUSED]["not_timed"] is None


def test_one_that_fails_in_training_is_a_row_with_the_error(monkeypatch):
    def broken(tensors):
        made = contenders.without_decay(tensors)
        made.step = lambda: tensors.parameters()[9]
        return made

    monkeypatch.setitem(loop.CONTENDERS, "broken", broken)
    rows = by_name(loop.measure(MLP, 0, [contenders.LRFUSED, "broken"]))
    assert rows["broken"]["not_timed"].startswith("fails with IndexError: ")


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")
def test_heavyball_is_within_rounding_of_the_for_loop_without_decay():
    pytest.importorskip("heavyball")
    row = by_name(loop.measure(MLP, 0, [rivals.HEAVYBALL]))[rivals.HEAVYBALL]
    assert row["not_timed"] is None, row
    assert row["note"] == "no weight decay"
    assert row["distance"]["oracle"] == "torch for-loop, no weight decay"


def test_without_heavyball_its_row_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "heavyball", None)
    rows = by_name(loop.measure(MLP, 0, [contenders.LRFUSED, rivals.HEAVYBALL]))
    reason = "heavyball is not installed: pip install lrfused[bench]"
    assert rows[rivals.HEAVYBALL] == {"name": rivals.HEAVYBALL, "not_timed": reason}


def test_torchs_compiled_step_may_take_every_lesson():
    for lesson in models.LESSONS:
        model, _ = lesson.begin()
        assert len(list(model.parameters())) <= rivals.TENSORS_FOR_INDUCTOR


def test_preparations_come_before_each_sample_and_are_not_timed():
    done = []
    samples = timing.interleave(
        {"one": lambda: done.append("call")},
        seconds=0,
        warm_up=1,
        min_rounds=2,
        batch=2,
        before={"one": lambda: (done.append("before"), time.sleep(0.05))},
    )
    assert done == ["before", "call", "call"] * 3
    assert max(samples["one"]) < 25


def test_steps_are_timed_with_one_thread_and_with_all(monkeypatch):
    was, threads = torch.get_num_threads(), set()
    make = contenders.fused_decay_sgd

    def watched(tensors):
        made = make(tensors)
        right = made.step
        made.step = lambda: (threads.add(torch.get_num_threads()), right())
        return made

    monkeypatch.setitem(scaling.OWN, contenders.LRFUSED, watched)
    monkeypatch.setattr(scaling, "MAX_BATCH", 1)
    try:
        torch.set_num_threads(2)
        found = scaling.measure(2, 0, shrink=1_000)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(was)
    assert threads == {1, 2}
    assert [case["tensors"] for case in found] == [1] * 9
    for case in found:
        for row in case["rows"]:
            assert row["one"]["samples"] == row["all"]["samples"]
            assert row["ratio"] > 0
        assert by_name(case)[contenders.LRFUSED]["distance"]["differing"] == 0


def test_all_threads_are_compared_with_one(monkeypatch):
    @contextmanager
    def here(threads):
        yield lambda function, *arguments: [function, threads, *arguments]

    monkeypatch.setattr(run.worker, "process", here)
    found = run.measure(("threads",), [1, 4], quick=False, shrink=1)["threads"]
    assert found == [scaling.measure, 4, 4, run.SECONDS["threads"], 1]


def test_one_thread_alone_is_compared_with_nothing():
    assert run.measure(("threads",), [1], quick=True, shrink=1_000)["threads"] == []


def timed(name, **medians):
    return {"name": name, "not_timed": None} | {
        key: {"median": median} for key, median in medians.items()
    }


def trained(threads, for_loop, fused):
    rows = [
        timed(name, zero_grad=0.001, step=both - 0.001, both=both, iteration=1.0)
        for name, both in (("lrfused", 0.01), ("torch for-loop", for_loop), ("torch fused", fused))
    ]
    return {"case": "mlp", "title": "MLP", "threads": threads, "rows": rows}


def step(case, ours, rival, tensors=10):
    rows = [
        {"name": name, "not_timed": None, "distance": {"differing": 0}}
        | dict.fromkeys(("median", "low", "high"), ms)
        | {"ratio": ms / ours}
        for name, ms in (("lrfused", ours), ("rival", rival))
    ]
    rows += [
        {"name": "absent", "not_timed": "is not installed"},
    ]
    return {
        "case": case, "title": case, "threads": 2, "tensors": tensors, "elements": 1_000_000,
        "bytes_per_element": 20, "in_place_gb_per_s": 10.0, "share_of_in_place": 2 / ours,
        "rows": rows,
    }  # fmt: skip


def judged(**found):
    empty = {"steps": [], "loop": [], "threads": [], "schedule": []}
    return [(t.text, round(t.value, 6), t.reached) for t in report.targets(empty | found)]


def test_training_is_judged_by_the_worse_number_of_threads():
    assert judged(loop=[trained(1, 0.07, 0.2), trained(2, 0.3, 0.04)]) == [
        ("training, MLP: zero_grad and step, times torch for-loop", 7.0, True),
        ("training, MLP: zero_grad and step, times torch fused", 4.0, False),
    ]
    bounds = [list(bounds.values()) for bounds in report.LOOPS.values()]
    assert bounds == [[7.0, 4.5], [7.0, 4.0], [20.0, 5.5]]
    assert list(report.LOOPS) == [lesson.name for lesson in models.LESSONS]


def test_the_visit_in_which_lrfused_took_its_median_time_is_kept():
    visits = [trained(1, for_loop, 0.2) for for_loop in (0.1, 0.2, 0.3)]
    for visit, both in zip(visits, (0.02, 0.01, 0.03), strict=True):
        visit["rows"][0]["both"]["median"] = both
        visit["rows"].append({"name": "absent", "not_timed": "is not installed"})
    kept = loop.middle(visits)
    assert kept["rows"] is visits[0]["rows"]
    assert kept["visits"] == [
        {"lrfused": ours, "torch for-loop": theirs, "torch fused": 0.2}
        for ours, theirs in ((0.02, 0.1), (0.01, 0.2), (0.03, 0.3))
    ]
    assert "visits" not in visits[0]


@pytest.mark.parametrize(
    ("quick", "shrink", "visits"), [(False, 1, 3), (True, 1, 1), (False, 2, 1)]
)
def test_a_whole_run_trains_before_amid_and_after_the_rest(monkeypatch, quick, shrink, visits):
    order = []

    def train(lesson, number, *options):
        order.append((lesson.name, number))
        return trained(number, 0.1, 0.2) | {"case": lesson.name}

    monkeypatch.setattr(run, "_loop", train)
    monkeypatch.setattr(run, "_step", lambda call, name, *options: order.append(name))
    monkeypatch.setattr(run.footprint, "import_ms", lambda: order.append("import"))
    names = ("loop", "small", "import")
    found = run.measure(names, [1, 2], quick=quick, shrink=shrink)
    visit = [(lesson.name, number) for number in (1, 2) for lesson in models.LESSONS]
    again = visit * (visits > 1)
    assert order == [*visit, "small", "small", *again, "import", *again]
    assert [(part["case"], part["threads"]) for part in found["loop"]] == visit
    assert {len(part["visits"]) for part in found["loop"]} == {visits}


def test_steps_are_judged_by_bandwidth_by_tensors_and_by_the_fastest_rival():
    fastest = "share of the fastest rival's time, rival"
    assert judged(steps=[step("large", 2.1, 2.0), step("vit-l16", 2.2, 2.0)]) == [
        ("large: share of the in-place pass's bandwidth", 0.952381, True),
        (f"large: {fastest}", 1.05, True),
        (f"vit-l16: {fastest}", 1.1, False),
    ]
    assert judged(steps=[step("small", 0.9, 1.8, tensors=10_000)]) == [
        ("small: ns a tensor", 90.0, True),
        (f"small: {fastest}", 0.5, True),
    ]


def test_threads_are_judged_at_the_worst_size():
    def case(title, ours, theirs):
        rows = [{"name": "lrfused", "ratio": ours}, {"name": "torch fused", "ratio": theirs}]
        return {"title": title, "threads": 2, "rows": rows}

    text = "2 threads' time as a share of one's, at worst: "
    assert judged(threads=[case("few", 1.05, 9.0), case("many", 0.6, 0.5)]) == [
        (text + "few", 1.05, True)
    ]
    assert judged(threads=[case("few", 1.0, 1.0), case("many", 1.2, 0.5)]) == [
        (text + "many", 1.2, False)
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return the folder and the content of the results of a tiny run, its threads made up."""
    folder = tmp_path_factory.mktemp("results")
    path = folder / "step-tiny.json"
    arguments = ["--case", "loop", "--shrink", "10000", "--threads", "1", "--json", str(path)]
    assert main(["bench", "--quick", *arguments]) == 0
    found = json.loads(path.read_text())
    rows = [timed("lrfused", one=0.1, all=0.2) | {"ratio": 2.0, "distance": {"differing": 0}}]
    case = {"title": "few", "threads": 2, "tensors": 1, "elements": 100, "rows": rows}
    found["threads"] = [case, case | {"elements": 1_000}]
    path.write_text(json.dumps(found))
    return folder, found


def test_a_run_keeps_training_and_judges_it(results):
    _, found = results
    assert [part["case"] for part in found["loop"]] == ["mlp", "cnn", "deep"]
    assert {part["threads"] for part in found["loop"]} == {1}
    assert len(found["targets"]) == 6


def test_the_parts_are_printed(capsys, results):
    tables.loop_table("Training", results[1]["loop"])
    tables.threads_table(results[1]["threads"])
    printed = capsys.readouterr().out
    for shown in ("CNN, 10 tensors", "equal bits", "zero_grad", "few", "2.00x", "200.00"):
        assert shown in printed


def test_training_and_threads_are_drawn(monkeypatch, results, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(BENCHMARKS)
    import draw

    shutil.copytree(results[0], tmp_path, dirs_exist_ok=True)
    draw.draw(tmp_path)
    assert {"loop.svg", "threads.svg"} == {path.name for path in tmp_path.glob("*.svg")}
    assert "MLP, 6 tensors, 1 thread" in (tmp_path / "loop.svg").read_text()
    assert draw.undrawn(tmp_path) == []


def test_the_readme_has_training_if_it_was_measured(monkeypatch, results):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import readme

    steps = [step("small", 1.0, 2.0)]
    commit = {"hash": "0123456789abcdef", "dirty": False}
    found = results[1] | {"commit": commit, "steps": steps}
    monkeypatch.setattr(readme, "newest", lambda: (found, ""))
    table = readme.table()
    assert "commit 012345678:\n" in table
    rates = report.loop_rates(found["loop"][0])
    ours, fused = (f"{rates[name]['both_us']:.1f}" for name in ("lrfused", "torch fused"))
    assert f"| MLP, 6 tensors, 1 thread | **{ours}** |" in table
    assert f"| {fused}" in table
    assert "| small | **1.00 ms** |" in table
    assert "| 200% |" in table
    without = found | {"loop": []}
    monkeypatch.setattr(readme, "newest", lambda: (without, ""))
    assert "MLP" not in readme.table()
    del without["loop"]  # older results
    assert "MLP" not in readme.table()
    commit["dirty"] = True
    assert "commit 012345678 and changes:\n" in readme.table()
