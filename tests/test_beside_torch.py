"""Whatever a user does to an optimizer, done to torch's too, leaves the same bits."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from support.beside_torch import BesideTorch, parameters
from support.fuzz import PARTS, main

pytestmark = pytest.mark.backends("host", "emulated", reason="test_gpu.py has runs on a GPU")

EXAMPLES = {"compiled": 20, "reference": 15, "cuda": 10, "triton": 1}
drawn = settings(
    derandomize=True, deadline=None, stateful_step_count=30, print_blob=False,
    report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
)  # fmt: skip


def test_whatever_is_done_to_both_leaves_the_same_bits(backend):
    kind = type("OnABackend", (BesideTorch,), {"backend": backend})
    run_state_machine_as_test(kind, settings=settings(drawn, max_examples=EXAMPLES[backend]))


class OneUlpOff(BesideTorch):
    """The same, with an optimizer that moves a parameter one ulp too far in a step."""

    def build(self, made):
        super().build(made)
        self.ours.register_step_post_hook(lambda optimizer, *_: nudge(optimizer))


def nudge(optimizer):
    for p in parameters(optimizer):
        p.data = p.data.nextafter(p.data + 1)


def test_one_ulp_is_found():
    once = settings(drawn, max_examples=20, phases=[Phase.generate])  # to shrink it takes minutes
    with pytest.raises(AssertionError, match="elements differ"):
        run_state_machine_as_test(OneUlpOff, settings=once)


def test_a_seed_found_by_fuzzing_can_be_run_again(capsys, monkeypatch):
    ran = []
    monkeypatch.setitem(PARTS, "compositions", lambda number, how: ran.append(number))
    assert main(["--part", "compositions", "--seed", "7"]) == 0
    assert ran == [7]
    assert capsys.readouterr().out == "compositions, seed 7\n"


def test_what_fuzzing_finds_is_told_with_its_seed(capsys, monkeypatch):
    def find(number, how):
        raise AssertionError("a bit differs")

    monkeypatch.setitem(PARTS, "compositions", find)
    assert main(["--part", "compositions", "--seconds", "0.01"]) >= 1
    told = capsys.readouterr()
    assert "a bit differs" in told.err
    seed = told.out.splitlines()[0].rpartition(" ")[2]
    assert f'again: make fuzz ARGS="--part compositions --seed {seed}"' in told.out
