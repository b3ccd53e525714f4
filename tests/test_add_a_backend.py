"""The toy backend of docs/backends.md: registered, chosen, tested, trained with."""

import pytest
import torch
from cases import HYPER, named
from support import toy
from support.loops import RATES, Race
from support.twin import Twin, leaf, numbers

from lrfused import FusedDecaySGD, backends
from lrfused.backends import trust
from lrfused.commands import info

CPU = torch.device("cpu")


@pytest.fixture
def register(monkeypatch):
    """Return a function that registers the toy for some device types; it is forgotten after."""
    return lambda *devices, code=None: toy.register(monkeypatch, code or toy.source(), devices)


def optimizer(backend):
    return FusedDecaySGD([leaf(numbers(33))], lr=0.1, momentum=0.9, backend=backend)


@pytest.mark.parametrize("hyper", HYPER)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_it_trains_with_torchs_bits(register, hyper, dtype):
    register()
    Twin([numbers(n, dtype=dtype, seed=n) for n in (0, 1, 33)], "toy", HYPER[hyper]).run(3)


def test_its_schedule_has_torchs_rates(register):
    register()
    Race(named("CosineAnnealingLR-ten"), "toy", RATES[2]).run(25)


def test_it_is_used_where_it_is_asked_for(register):
    register()
    assert backends.names()[-1] == "toy"
    assert optimizer("toy").backend == "toy"
    assert optimizer("auto").backend != "toy"


def test_on_the_devices_it_names_it_comes_first(register):
    register("cpu")
    assert backends.preferences("cpu")[0] == "toy"
    assert "toy" not in backends.preferences("cuda")
    assert optimizer("auto").backend == "toy"


def test_for_other_devices_it_comes_after_those_made_for_them(register):
    register(backends.OTHERS)
    assert backends.preferences("cuda") == ("cuda", "triton", "toy", "compiled", "reference")


def test_the_self_test_runs_on_it_and_finds_what_is_wrong(register):
    register()
    optimizer("toy")
    assert trust.verdict(backends.choose("toy"), CPU).state == "passed"
    register("cpu", code=toy.broken("plain_parameters_have_the_references_bits"))
    with pytest.raises(RuntimeError, match="the self-test of the toy backend on cpu failed"):
        optimizer("toy")
    with pytest.warns(UserWarning, match="toy backend on cpu failed: .* is used instead"):
        assert optimizer("auto").backend != "toy"


@pytest.mark.parametrize("name", ["auto", "compiled", "toy"])
def test_a_name_that_is_taken_is_refused(register, name):
    register()
    with pytest.raises(ValueError, match=f"got '{name}'"):
        backends.register(backends.Record(name, "nowhere", (), "nothing"))


def test_one_that_cannot_be_used_says_why(register):
    code = toy.source().replace(
        '    name = "toy"\n', '    name = "toy"\n    unavailable = lambda self: "no toys here"\n'
    )
    register("cpu", code=code)
    assert backends.available()["toy"] == "no toys here"
    with pytest.raises(RuntimeError, match="backend='toy' cannot be used here: no toys here"):
        optimizer("toy")
    assert optimizer("auto").backend != "toy"


def test_a_module_that_is_not_there_is_a_reason(register):
    register()
    backends.register(backends.Record("missing", "lrfused_missing", (), "nothing"))
    assert "lrfused_missing" in backends.available()["missing"]


def test_info_lists_it(register):
    register("cpu")
    rows, chosen = info.report()
    assert ("toy", "ready", "tests") in rows
    assert chosen[0][2] == "toy"


def test_a_backend_must_make_steps():
    from lrfused.backends.base import Backend

    with pytest.raises(TypeError, match="step"):
        type("Idle", (Backend,), {"name": "idle"})()
