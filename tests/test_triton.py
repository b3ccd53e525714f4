"""The Triton backend: the schedule on the device, decisions in flight, what is uploaded when."""

import copy
import math

import pytest
import torch
from bits import assert_same_bits, assert_same_rates
from cases import COMPOSITIONS, DTYPES, HYPER, PLATEAUS, STEPPED, Schedule, named
from loops import RATES, Race, group_counts
from tape import interpreted
from twin import Twin, assert_same_state, leaf, numbers, rates, sgd

import lrfused
from lrfused import FusedDecaySGD, backends
from lrfused.backends.triton import program, tables

pytestmark = interpreted
HYPERS = {name: HYPER[name] for name in ("plain", "nesterov-decay")}


def mirror_of(optimizer):
    (only,) = optimizer._rates.program._mirrors.values()
    return only


def assert_the_device_agrees(optimizer):
    """Compare the device's own copy of the schedule's state with the host's."""
    ours, device = optimizer._rates.program, mirror_of(optimizer)
    for name, host in ours._moving.items():
        there = device[name][: host.numel()].reshape(host.shape)
        if name == "plateau states":
            host = host[ours._order]
        assert repr(there.tolist()) == repr(host.tolist()), name


# -- the schedule on the device ----------------------------------------------------------------


@pytest.mark.parametrize("case", STEPPED, ids=str)
def test_the_device_advances_as_torch_does(case):
    race = Race([case], "triton", RATES[group_counts(case)[0]], every=None)
    for group in race.opt.param_groups:
        group["params"][0].grad = torch.ones(1)
    race.step()
    for _ in range(14):
        race.advance()
        assert_the_device_agrees(race.opt)


@pytest.mark.parametrize("cases", COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_the_device_runs_compositions_in_order(cases):
    race = Race(cases, "triton", RATES[2], every=None)
    race.opt.param_groups[0]["params"][0].grad = torch.ones(1)
    race.step()
    for step in range(12):
        if step == 7:
            race.write(0.3, group=1)
        race.advance()
        assert_the_device_agrees(race.opt)


NOISE = [1.0, 0.5, 0.6, 0.55, 0.49, 0.49, 0.7, math.nan, 0.3, 0.31, 0.29996, 0.31, -0.4, math.inf]


@pytest.mark.parametrize("case", PLATEAUS, ids=str)
def test_the_device_decides_as_torchs_plateau_does(case):
    race = Race([case], "triton", RATES[group_counts(case)[0]])
    race.opt.param_groups[0]["params"][0].grad = torch.ones(1)
    race.step()
    for metric in NOISE:
        race.feed(torch.tensor(metric))
        assert_the_device_agrees(race.opt)


def test_two_plateaus_beside_another_schedule():
    cases = named("ReduceLROnPlateau-hasty", "ExponentialLR-slow", "ReduceLROnPlateau-abs")
    race = Race(cases, "triton", RATES[2])
    race.opt.param_groups[0]["params"][0].grad = torch.ones(1)
    for turn, metric in enumerate(NOISE):
        for optimizer in (race.opt, race.torchs):
            optimizer.step()
        race.opt.scheduler.step(torch.tensor(metric) if turn % 3 else metric)
        race.torchs.feed(metric)
        assert_same_rates(rates(race.opt), rates(race.torchs.opt), f"turn {turn}")
        if turn % 3:  # a number is uploaded with the next step
            assert_the_device_agrees(race.opt)


def test_a_table_is_compiled_anew_at_the_end_of_its_window(monkeypatch):
    monkeypatch.setattr(lrfused.rates, "_WINDOW", 5)
    race = Race(named("CosineAnnealingLR-odd", "LambdaLR-root"), "triton", RATES[2])
    race.opt.param_groups[0]["params"][0].grad = torch.ones(1)
    for _ in range(18):
        race.step()
        assert_the_device_agrees(race.opt)


def test_a_momentum_may_live_in_a_cell():
    race = [{"params": [leaf(numbers(70))], "lr": 0.1}, {"params": [leaf(numbers(3))], "lr": 0.9}]
    ours = FusedDecaySGD(race, momentum=0.5, schedule=lrfused.ExponentialLR(0.9), backend="triton")
    other = leaf(numbers(70))
    theirs = sgd([other], lr=0.1, momentum=0.5)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.9)
    mine = ours.param_groups[0]["params"][0]
    for step in range(4):
        ours._rates.program.momentum_cells = {0: 1}  # the second group's rate
        theirs.param_groups[0]["momentum"] = rates(ours)[1]
        mine.grad = numbers(70, seed=step)
        other.grad = numbers(70, seed=step)
        ours.step()
        theirs.step()
        scheduler.step()
        assert_same_bits(mine, other, f"step {step}")


def test_a_schedule_on_a_device_is_loaded_copied_and_joined():
    def optimizer(backend):
        schedule = [lrfused.CosineAnnealingLR(7, 1e-3), lrfused.ReduceLROnPlateau(patience=0)]
        params = [leaf(numbers(n, seed=n)) for n in (33, 70)]
        return FusedDecaySGD(params, lr=0.1, momentum=0.9, schedule=schedule, backend=backend)

    both = optimizer("triton"), optimizer("reference")

    def run(steps):
        for step in range(steps):
            for each in both:
                for group in each.param_groups:
                    for p in group["params"]:
                        p.grad = numbers(*p.shape, seed=step)
                each.step()
                each.scheduler.step(torch.tensor(1.0 + step % 3))
            assert_same_state(*both)

    run(3)
    saved = both[0].state_dict()
    run(3)
    for each in both:
        each.load_state_dict(copy.deepcopy(saved))
    run(3)
    assert_same_state(copy.deepcopy(both[0]), both[1])
    for each in both:
        each.add_param_group({"params": [leaf(numbers(5))], "lr": 0.3, "schedule": None})
    run(3)


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
    assert_the_device_agrees(twin.opt)


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
    assert_the_device_agrees(twin.opt)


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
