"""Captured steps: they replay as torch steps, and what a graph would freeze wrongly is refused."""

import math

import pytest
import torch
from cases import HYPER, Schedule, named
from support.bits import assert_same_bits, assert_same_rates
from support.loops import momenta
from support.tape import not_emulated
from support.twin import assert_same_state, leaf, numbers, rates, sgd

import lrfused
from lrfused import FusedDecaySGD
from lrfused.rates import rates as rates_module

NOISE = [1.0, 0.5, 0.6, 0.55, 0.49, 0.49, 0.7, math.nan, 0.3, 0.31, 0.29996, 0.31, -0.4, math.inf]


def captured(device, tape, schedule=None, hyper="nesterov-decay", **kwargs):
    """Make an optimizer, step it twice, capture its step; return it beside torch's."""
    mine = [leaf(numbers(n, seed=n)) for n in (1025, 33)]
    other = [leaf(p) for p in mine]
    for params in (mine, other):
        for i, p in enumerate(params):
            p.grad = numbers(*p.shape, seed=i + 50)
    ours = FusedDecaySGD(
        mine, lr=0.1, **HYPER[hyper], backend=device,
        schedule=None if schedule is None else schedule.ours(), **kwargs,
    )  # fmt: skip
    theirs = sgd(other, lr=0.1, **HYPER[hyper])
    scheduler = None if schedule is None else schedule.torchs(theirs)

    def step_theirs():
        theirs.step()
        if scheduler is not None:
            scheduler.step()

    for _ in range(2):
        ours.step()
        step_theirs()
    tape.capture(ours.step)
    return ours, theirs, step_theirs


CAPTURED = [
    None,
    *named("ExponentialLR-slow", "CosineAnnealingLR-ten", "SequentialLR-warmup-cosine"),
    Schedule("OneCycleLR", "OneCycleLR", {"max_lr": 0.2, "total_steps": 40}),
]


@pytest.mark.parametrize("schedule", CAPTURED, ids=str)
def test_a_captured_step_replays_as_torch_steps(device, tape, schedule):
    ours, theirs, step = captured(device, tape, schedule, capturable=True)
    history = []
    for replay in range(30):
        for p, q in zip(
            ours.param_groups[0]["params"], theirs.param_groups[0]["params"], strict=True
        ):
            p.grad.copy_(numbers(*p.shape, seed=replay))
            q.grad.copy_(p.grad)
        tape.replay()
        history.append((3 + replay, rates(theirs)))  # the rates used
        step()
        if replay % 10 == 5:
            assert_same_rates(ours.lr_used, history[-1][1], f"replay {replay}")
            assert_same_rates(ours.scheduler.get_last_lr(), rates(theirs), f"replay {replay}")
    ours.scheduler.get_last_lr()
    assert_same_state(ours, theirs)
    assert momenta(ours) == momenta(theirs)
    if schedule:
        assert ours.scheduler.last_epoch == 32
        assert ours.lr_history().steps == list(range(1, 33))
        assert ours.lr_history().lrs[2:-1] == [row[1] for row in history[1:]]
    ours.step()
    step()
    assert_same_state(ours, theirs, "a step by hand after the replays")
    tape.replay()
    step()
    ours.state_dict()
    assert_same_rates(ours.scheduler.get_last_lr(), rates(theirs), "another replay")


def test_a_captured_step_keeps_its_table_when_gradients_move(device, tape):
    ours, theirs, step = captured(device, tape)
    params = ours.param_groups[0]["params"]
    kept = [p.grad for p in params]
    for p in params:
        p.grad = p.grad.clone()
    ours.step()
    step()
    for grad in kept:
        grad.mul_(0.5)
    for q in theirs.param_groups[0]["params"]:
        q.grad.mul_(0.5)
    tape.replay()
    step()
    assert_same_state(ours, theirs)


def test_a_plateau_is_fed_between_replays(device, tape):
    case = Schedule("plateau", "ReduceLROnPlateau", {"patience": 1, "factor": 0.5})
    mine, other = leaf(numbers(33)), leaf(numbers(33))
    mine.grad, other.grad = numbers(33, seed=1), numbers(33, seed=1)
    opt = FusedDecaySGD([mine], lr=0.1, schedule=case.ours(), backend=device)
    oracle = sgd([other], lr=0.1)
    plateau = case.torchs(oracle)
    for _ in range(2):
        opt.step()
        oracle.step()
    tape.capture(opt.step)
    for metric in NOISE:
        tape.replay()
        oracle.step()
        opt.scheduler.step(torch.tensor(metric))
        plateau.step(torch.tensor(metric))
        assert_same_bits(mine, other)
        if metric == 0.7:  # a number in host memory
            opt.scheduler.step(0.1)
            plateau.step(0.1)
    assert opt.scheduler.get_last_lr() == rates(oracle)
    assert opt.scheduler.state_dict()["num_bad_epochs"] == plateau.num_bad_epochs


def test_replays_beyond_the_tables_are_found_out(device, tape, monkeypatch):
    monkeypatch.setattr(rates_module, "CAPTURED", 16)
    ours, theirs, step = captured(device, tape, named("CosineAnnealingLR-long")[0], capturable=True)
    for _ in range(5):
        for _ in range(7):
            tape.replay()
            step()
        assert_same_rates(ours.scheduler.get_last_lr(), rates(theirs))
    for _ in range(20):
        tape.replay()
    with pytest.raises(RuntimeError, match="replayed up to epoch"):
        ours.scheduler.get_last_lr()


def test_the_end_of_a_cycle_is_told_as_torch_tells_it(device, tape):
    case = Schedule("cycle", "OneCycleLR", {"max_lr": 0.2, "total_steps": 9})
    ours, theirs, step = captured(device, tape, case, capturable=True)
    for _ in range(7):
        tape.replay()
        step()
        assert_same_rates(ours.scheduler.get_last_lr(), rates(theirs))
    assert_same_state(ours, theirs)
    with pytest.raises(ValueError, match="Tried to step 10 times"):
        ours.step()
    assert_same_state(ours, theirs)
    tape.replay()
    with pytest.raises(RuntimeError, match="replayed up to epoch 10, and its schedule ends at 9"):
        ours.scheduler.get_last_lr()


def test_what_is_written_between_replays_is_used(device, tape):
    ours, theirs, step = captured(device, tape, named("ExponentialLR-usual")[0])
    for lr in (0.3, 0.7):
        for _ in range(3):
            tape.replay()
            step()
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] = lr
        ours.scheduler.get_last_lr()  # waits, and shows what the replays came to
        assert rates(ours) == [lr]
        tape.replay()
        step()
        assert ours.lr_used == [lr]
    ours.scheduler.get_last_lr()
    assert_same_state(ours, theirs)


def warm(device, hyper="momentum", **kwargs):
    p = leaf(numbers(33))
    p.grad = numbers(33, seed=1)
    opt = FusedDecaySGD([p], lr=0.1, **HYPER[hyper], backend=device, **kwargs)
    opt.step()
    opt.step()
    return opt, p


def test_a_capture_of_a_first_step_is_refused(device, tape):
    opt, p = warm(device)
    opt.state.clear()
    before = p.detach().clone()
    with pytest.raises(RuntimeError, match=r"cannot be captured.*momentum buffers"):
        tape.capture(opt.step)
    assert not len(tape)
    assert_same_bits(p, before)
    assert not opt.state.get(p)


CHANGES = {
    "moved": lambda opt, p: setattr(p, "grad", p.grad.clone()),
    "rates": lambda opt, p: opt.param_groups[0].update(lr=0.7),
    "hyper-parameters": lambda opt, p: opt.param_groups[0].update(weight_decay=0.7),
    "memory order": lambda opt, p: setattr(p, "grad", numbers(66)[::2]),
}


@pytest.mark.parametrize("words", CHANGES)
def test_a_capture_of_something_stale_is_refused(device, tape, words):
    if device == "cuda" and words in ("moved", "hyper-parameters"):
        pytest.skip("a launch takes its table along")
    opt, p = warm(device)
    CHANGES[words](opt, p)
    with pytest.raises(RuntimeError, match=f"cannot be captured.*{words}"):
        tape.capture(opt.step)
    assert not len(tape)
    opt.step()
    if words != "memory order":
        tape.capture(opt.step)
        assert len(tape) == {"triton": 1, "cuda": 1}[device]


def test_a_capture_beyond_the_schedules_tables_is_refused(device, tape):
    opt, _ = warm(device, schedule=lrfused.CosineAnnealingLR(10))
    with pytest.raises(RuntimeError, match="capturable=True"):
        tape.capture(opt.step)
    opt, _ = warm(device, schedule=lrfused.StepLR(10))
    tape.capture(opt.step)


def test_a_capture_of_some_steps_to_one_of_the_schedule_is_refused(device, tape):
    opt, _ = warm(device, schedule=lrfused.StepLR(10), schedule_every=2)
    with pytest.raises(RuntimeError, match="schedule_every=2"):
        tape.capture(opt.step)


def test_a_metric_inside_a_capture_is_refused(tape):
    if why := not_emulated("triton"):
        pytest.skip(f"triton: {why}")
    opt, _ = warm("triton", schedule=lrfused.ReduceLROnPlateau())
    with pytest.raises(RuntimeError, match="cannot be captured"):
        tape.capture(lambda: opt.scheduler.step(torch.tensor(1.0)))
    assert opt.scheduler.last_epoch == 0
