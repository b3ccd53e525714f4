"""The Triton backend: the schedule on the device, decisions in flight, what is uploaded when."""

import pytest
import torch
from bits import assert_same_bits, assert_same_rates
from cases import DTYPES, HYPER, Schedule, named
from loops import RATES, Race
from tape import assert_the_device_agrees, interpreted
from twin import Twin, assert_same_state, leaf, numbers, rates

import lrfused
from lrfused import FusedDecaySGD, backends
from lrfused.backends.triton import program, tables

pytestmark = interpreted
HYPERS = {name: HYPER[name] for name in ("plain", "nesterov-decay")}


# -- a decision that is still in flight ---------------------------------------------------------


@pytest.fixture
def landing(monkeypatch):
    """Hold every metric in the air until told, or until somebody waits."""
    state = {"landed": False}
    monkeypatch.setattr(program.Flight, "landed", lambda self: state["landed"])
    return state


def fed_pair():
    case = Schedule("plateau", "ReduceLROnPlateau", {"patience": 0, "factor": 0.5})
    twin = Twin([numbers(33), numbers(7, seed=1)], "triton", {"momentum": 0.9}, [])
    schedule = [case.ours(), lrfused.ExponentialLR(0.9)]
    twin.opt = FusedDecaySGD(twin.mine, lr=0.1, momentum=0.9, schedule=schedule, backend="triton")
    plateau, exponential = case.torchs(twin.oracle), named("ExponentialLR-usual")[0]
    twin.schedulers = [exponential.torchs(twin.oracle)]
    return twin, plateau


def step_both(twin):
    """Step both; compare parameters, but not the rates that the host shows."""
    twin.give(twin.draw())
    for optimizer in twin.both:
        optimizer.step()
    for scheduler in twin.schedulers:
        scheduler.step()
    twin.steps += 1
    for mine, other in zip(twin.mine, twin.other, strict=True):
        assert_same_bits(mine, other, f"step {twin.steps}")


@pytest.mark.parametrize("then", ["get_last_lr", "state_dict", "landed", "epoch", "number"])
def test_steps_go_on_while_a_metric_is_in_flight(landing, then):
    twin, plateau = fed_pair()
    step_both(twin)
    for metric in (1.0, 2.0, 3.0):
        twin.opt.scheduler.step(torch.tensor(metric))
        plateau.step(metric)
        step_both(twin)
        step_both(twin)
    stale = rates(twin.opt)
    assert stale != rates(twin.oracle), "nobody has waited"
    if then == "get_last_lr":
        assert_same_rates(twin.opt.scheduler.get_last_lr(), rates(twin.oracle))
    elif then == "state_dict":
        assert twin.opt.state_dict()["param_groups"][0]["lr"] == rates(twin.oracle)[0]
    elif then == "epoch":
        assert twin.opt.scheduler.last_epoch == twin.schedulers[0].last_epoch
    elif then == "number":
        twin.opt.scheduler.step(4.0)
        plateau.step(4.0)
    else:
        landing["landed"] = True
    step_both(twin)
    assert_same_state(*twin.both)
    assert_the_device_agrees(twin.opt._rates.program)


def test_a_rate_written_in_flight_is_kept(landing):
    twin, plateau = fed_pair()
    step_both(twin)
    for metric in (1.0, 2.0):
        twin.opt.scheduler.step(torch.tensor(metric))
        plateau.step(metric)
    for optimizer in twin.both:
        optimizer.param_groups[0]["lr"] = 0.7
    step_both(twin)
    assert_same_state(*twin.both)
    assert_the_device_agrees(twin.opt._rates.program)


def test_a_verbose_plateau_tells_when_it_knows(landing, capsys):
    schedule = lrfused.ReduceLROnPlateau(patience=0, factor=0.5, verbose=True)
    p = leaf(numbers(3))
    p.grad = numbers(3)
    opt = FusedDecaySGD([p], lr=0.1, schedule=schedule, backend="triton")
    opt.step()
    opt.scheduler.step(torch.tensor(1.0))
    opt.scheduler.step(torch.tensor(2.0))
    assert capsys.readouterr().out == ""
    landing["landed"] = True
    opt.step()
    assert capsys.readouterr().out == "Epoch 2: reducing learning rate of group 0 to 5.0000e-02.\n"


# -- what is uploaded and launched ---------------------------------------------------------------


def test_only_what_changed_is_uploaded(tape):
    twin = Twin([numbers(1025), numbers(7, seed=1)], "triton", HYPER["momentum-decay"])
    twin.run(2)
    grads = twin.draw()

    def uploads_of_a_step():
        before = tape.uploads
        for params in (twin.mine, twin.other):
            for p, grad in zip(params, grads, strict=True):
                p.grad.copy_(grad)
        for optimizer in twin.both:
            optimizer.step()
        twin.check()
        return tape.uploads - before

    assert uploads_of_a_step() == 0
    for change in ({"lr": 0.05}, {"momentum": 0.8}, {"weight_decay": 0.1}):
        for optimizer in twin.both:
            optimizer.param_groups[0].update(change)
        assert uploads_of_a_step() == 1, change
        assert uploads_of_a_step() == 0, change
    for params in (twin.mine, twin.other):
        params[0].grad = params[0].grad.clone()
    assert uploads_of_a_step() == 1, "a gradient moved"


def test_one_launch_for_all_tensors_of_a_dtype(tape):
    params = [leaf(numbers(n, dtype=d, seed=n)) for n in (3, 1025, 0, 70) for d in DTYPES]
    groups = [{"params": params[:7]}, {"params": params[7:], "lr": 0.3, "momentum": 0.0}]
    for p in params:
        p.grad = numbers(*p.shape, dtype=p.dtype)
    opt = FusedDecaySGD(groups, lr=0.1, momentum=0.9, nesterov=True, backend="triton")
    opt.step()
    opt.step()
    tape.capture(opt.step)
    assert len(tape.calls) == len(DTYPES)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_tiles_of_the_size_that_is_compiled(monkeypatch, hyper, dtype):
    monkeypatch.setattr(tables, "rows_of_a_tile", lambda chunks, cols: 2048 // cols)
    Twin([numbers(n, dtype=dtype, seed=n) for n in (1, 2049, 5000, 1024)], "triton", hyper).run(2)
    Twin([numbers(n, dtype=dtype, seed=n) for n in (1, 65, 33, 64)], "triton", hyper).run(2)


@pytest.mark.parametrize("numels", [[0], [1], [64] * 9, [0, 1, 64, 65], [5000, 0, 1024, 1025]])
def test_chunks_cover_every_element_once(numels):
    cols, chunks = tables.cut(numels)
    covered = [0] * len(numels)
    for slot, piece in chunks.tolist():
        assert piece * cols == covered[slot]
        covered[slot] = min(numels[slot], covered[slot] + cols)
    assert covered == numels


# -- the choice ----------------------------------------------------------------------------------


def test_the_backend_is_chosen_by_the_device():
    assert backends.preferred("cuda") == "triton"
    first = "reference" if backends.available()["compiled"] else "compiled"
    assert backends.preferred("cpu") == first


def test_a_model_that_was_moved_takes_its_schedule_along(monkeypatch):
    race = Race(named("CosineAnnealingLR-ten"), "auto", RATES[2])
    race.run(5)
    kind = type(race.opt._rates.program)
    monkeypatch.setattr(race.opt, "_device_type", "cuda")  # as if it had been there
    monkeypatch.setattr(race.opt, "_first_device_type", lambda: "xpu")
    race.run(5)
    assert type(race.opt._rates.program) is program.Program is not kind
