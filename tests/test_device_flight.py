"""Decisions that a device has made and the host does not know yet."""

import pytest
import torch
from cases import Schedule, named
from support.bits import assert_same_bits, assert_same_rates
from support.inside import program_of
from support.tape import assert_the_device_agrees
from support.twin import Twin, assert_same_state, leaf, numbers, rates

import lrfused
from lrfused import FusedDecaySGD
from lrfused.backends.device import transfer


@pytest.fixture
def landing(monkeypatch):
    """Keep every metric in flight until the test lets it land, or until a caller waits."""
    state = {"landed": False}
    monkeypatch.setattr(transfer.Flight, "landed", lambda self: state["landed"])
    return state


def fed_pair(device):
    case = Schedule("plateau", "ReduceLROnPlateau", {"patience": 0, "factor": 0.5})
    twin = Twin([numbers(33), numbers(7, seed=1)], device, {"momentum": 0.9}, [])
    schedule = [case.ours(), lrfused.ExponentialLR(0.9)]
    twin.opt = FusedDecaySGD(twin.mine, lr=0.1, momentum=0.9, schedule=schedule, backend=device)
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
def test_steps_go_on_while_a_metric_is_in_flight(device, landing, then):
    twin, plateau = fed_pair(device)
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
    assert_the_device_agrees(program_of(twin.opt))


def test_a_rate_written_in_flight_is_kept(device, landing):
    twin, plateau = fed_pair(device)
    step_both(twin)
    for metric in (1.0, 2.0):
        twin.opt.scheduler.step(torch.tensor(metric))
        plateau.step(metric)
    for optimizer in twin.both:
        optimizer.param_groups[0]["lr"] = 0.7
    step_both(twin)
    assert_same_state(*twin.both)
    assert_the_device_agrees(program_of(twin.opt))


def test_a_tensor_rate_that_is_filled_in_flight_is_followed(device, landing):
    p = leaf(numbers(3))
    p.grad = numbers(3)
    rate = torch.tensor(0.5, dtype=torch.float64)
    plateau = lrfused.ReduceLROnPlateau(patience=0, factor=0.5)
    opt = FusedDecaySGD([p], lr=rate, schedule=[plateau], backend=device)
    opt.step()
    for metric in (1.0, 2.0):
        opt.scheduler.step(torch.tensor(metric))
    assert rate.item() == 0.5, "nobody has waited"
    rate.fill_(0.75)
    opt.step()
    assert opt.lr_used == [0.75]
    assert rate.item() == 0.75
    opt.scheduler.step(torch.tensor(3.0))
    landing["landed"] = True
    opt.step()
    assert opt.lr_used == [0.375]
    assert rate.item() == 0.375


def test_a_verbose_plateau_tells_when_it_knows(device, landing, capsys):
    schedule = lrfused.ReduceLROnPlateau(patience=0, factor=0.5, verbose=True)
    p = leaf(numbers(3))
    p.grad = numbers(3)
    opt = FusedDecaySGD([p], lr=0.1, schedule=schedule, backend=device)
    opt.step()
    opt.scheduler.step(torch.tensor(1.0))
    opt.scheduler.step(torch.tensor(2.0))
    assert capsys.readouterr().out == ""
    landing["landed"] = True
    opt.step()
    assert capsys.readouterr().out == "Epoch 2: reducing learning rate of group 0 to 5.0000e-02.\n"


WAYS = {
    "written": lambda o: setattr(o.scheduler, "patience", 5),
    "read": lambda o: o.scheduler.best,
    "last_epoch": lambda o: setattr(o.scheduler, "last_epoch", 7),
    "loaded": lambda o: o.scheduler.load_state_dict(o.scheduler.state_dict()),
    "lr_used": lambda o: o.lr_used,
    "history": lambda o: o.lr_history(),
    "state": lambda o: o.scheduler.state_dict(),
    "joined": lambda o: o.add_param_group({"params": [leaf(numbers(3))], "lr": 1.0}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_decision_in_flight_survives_whatever_waits_for_it(device, landing, way):
    schedule = lrfused.ReduceLROnPlateau(patience=0)
    p = leaf(numbers(5))
    opt = FusedDecaySGD([p], lr=0.1, schedule=schedule, backend=device)
    p.grad = torch.ones_like(p)
    opt.step()
    for metric in (1.0, 2.0):
        opt.scheduler.step(torch.tensor(metric))
    WAYS[way](opt)
    assert opt.scheduler.get_last_lr()[0] == 0.1 * 0.1
    assert opt.param_groups[0]["lr"] == 0.1 * 0.1
    opt.step()
    assert opt.lr_used[0] == 0.1 * 0.1
    assert opt.state_dict()["param_groups"][0]["lr"] == 0.1 * 0.1


def test_the_shown_rate_written_again_in_flight_is_the_users(device, landing):
    p = leaf(numbers(5))
    schedule = lrfused.ReduceLROnPlateau(patience=0)
    opt = FusedDecaySGD([p], lr=0.1, schedule=schedule, backend=device)
    p.grad = torch.ones_like(p)
    opt.step()
    for metric in (1.0, 2.0):
        opt.scheduler.step(torch.tensor(metric))
    opt.param_groups[0]["lr"] = float("0.1")
    opt.step()
    assert opt.lr_used == [0.1]
