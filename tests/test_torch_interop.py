"""Checkpoints that go to torch.optim.SGD and its schedulers, and come back."""

import copy
import io
import warnings

import pytest
import torch
from cases import DTYPES, HYPER, SCHEDULES, TORCH_IS_ORACLE, with_lr
from support.bits import assert_same_bits, assert_same_rates
from support.loops import RATES, product_ids, products
from support.runs import Ours, Torch, give, groups, values_of
from support.twin import (
    assert_same_state,
    leaf,
    momentum,
    numbers,
    oracle,
    rates,
    sgd,
)

from lrfused import FusedDecaySGD

pytestmark = pytest.mark.backends(
    "host", reason="test_device_schedule.py runs schedules on a device"
)

PAIRS = products(SCHEDULES)


@pytest.mark.parametrize("at", [0, 1, 10])
@pytest.mark.parametrize("pair", PAIRS, ids=product_ids)
def test_a_run_begun_here_goes_on_in_torch_and_back(backend, pair, at):
    case, count = pair
    lrs, other = RATES[count], [0.9, 0.7][:count]
    want, first = Torch(case, lrs), Ours(case, lrs, backend)
    for number in range(at):
        want.step(number)
        first.step(number)
    there = Torch(case, other, values_of(first))
    there.opt.load_state_dict(copy.deepcopy(first.opt.state_dict()))
    there.scheduler.load_state_dict(copy.deepcopy(first.scheduler.state_dict()))
    for number in range(at, at + 20):
        want.step(number)
        there.step(number)
    assert_same_state(there.opt, want.opt, "in torch,")
    back = Ours(case, other, backend, values_of(there))
    with warnings.catch_warnings():  # of the schedule's state that torch carried along
        warnings.filterwarnings("ignore", ".*another optimizer went on")
        back.opt.load_state_dict(copy.deepcopy(there.opt.state_dict()))
    back.scheduler.load_state_dict(copy.deepcopy(there.scheduler.state_dict()))
    for number in range(at + 20, at + 45):
        want.step(number)
        back.step(number)
        assert_same_rates(rates(back.opt), rates(want.opt), f"back, at {number}")
    assert_same_state(back.opt, want.opt, "back here,")


@pytest.mark.parametrize("handle_first", [True, False])
@pytest.mark.parametrize("pair", PAIRS, ids=product_ids)
def test_torchs_states_load_in_either_order(backend, pair, handle_first):
    case, count = pair
    want = Torch(case, RATES[count])
    for number in range(13):
        want.step(number)
    ours = Ours(case, [0.9, 0.7][:count], backend, values_of(want))
    states = copy.deepcopy((want.opt.state_dict(), want.scheduler.state_dict()))
    if handle_first:
        ours.scheduler.load_state_dict(states[1])
        ours.opt.load_state_dict(states[0])
    else:
        ours.opt.load_state_dict(states[0])
        ours.scheduler.load_state_dict(states[1])
    for number in range(13, 40):
        ours.step(number)
        want.step(number)
        assert_same_rates(rates(ours.opt), rates(want.opt), f"at {number}")
    assert_same_state(ours.opt, want.opt)


@pytest.mark.parametrize("pair", PAIRS, ids=product_ids)
def test_the_state_of_the_handle_is_the_one_of_torchs_scheduler(backend, pair):
    case, count = pair
    ours, want = Ours(case, RATES[count], backend), Torch(case, RATES[count])
    for number in range(25):
        mine, theirs = ours.scheduler.state_dict(), want.scheduler.state_dict()
        for state in (mine, theirs):
            forget_rates_between(state)
        assert set(mine) == set(theirs)
        for key, value in theirs.items():
            assert mine[key] == value, f"{key} after {number} steps"
            assert type(mine[key]) is type(value), key
        file = io.BytesIO()
        torch.save(mine, file)
        file.seek(0)
        assert torch.load(file, weights_only=True) == mine
        ours.step(number)
        want.step(number)


def forget_rates_between(state, chained=False):
    """Drop the rates that the members of a chain left to each other: nobody reads them."""
    is_chain = "_schedulers" in state and "_milestones" not in state
    if chained:
        del state["_last_lr"]
    for member in state.get("_schedulers", ()):
        forget_rates_between(member, chained or is_chain)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", HYPER.values(), ids=HYPER)
def test_momenta_and_hyper_parameters_go_both_ways(backend, hyper, dtype):
    kwargs = with_lr(hyper)
    values = [numbers(33, dtype=dtype)]
    want = oracle([leaf(values[0])], dtype, **kwargs)
    ours = FusedDecaySGD([leaf(values[0])], backend=backend, **kwargs)
    for number in range(3):
        give(want, number)
        give(ours, number)
        want.step()
        ours.step()
    params = [leaf(p) for p in ours.param_groups[0]["params"]]
    there = oracle(params, dtype, lr=0.77)
    there.load_state_dict(copy.deepcopy(ours.state_dict()))
    params = [leaf(p) for p in want.param_groups[0]["params"]]
    back = FusedDecaySGD(params, lr=0.77, backend=backend)
    back.load_state_dict(copy.deepcopy(want.state_dict()))
    for number in range(3, 6):
        for optimizer in (want, there, back):
            give(optimizer, number)
            optimizer.step()
        assert_same_state(there, want, "in torch,")
        assert_same_state(back, want, "here,")
    names = ("momentum", "dampening", "weight_decay", "nesterov", "maximize")
    for name in names:
        assert (
            back.param_groups[0][name] == want.param_groups[0][name] == there.param_groups[0][name]
        )


def trained_torch(dtype=torch.float32, **kwargs):
    optimizer = torch.optim.SGD(
        groups([0.1, 0.2], dtype), **{**HYPER["momentum-decay"], "lr": 0.1, **kwargs}
    )
    for number in range(3):
        give(optimizer, number)
        optimizer.step()
    return optimizer


def resume_both(state, donor, backend, steps=3, dtype=torch.float32):
    """Load a state in both and compare what comes of it."""
    values = [p.detach().clone() for g in donor.param_groups for p in g["params"]]
    ours = FusedDecaySGD(groups([0.9, 0.9], values=values), lr=0.9, backend=backend)
    theirs = sgd(groups([0.9, 0.9], values=values), lr=0.9)
    assert dtype in TORCH_IS_ORACLE
    for optimizer in (ours, theirs):
        optimizer.load_state_dict(copy.deepcopy(state))
    for group in theirs.param_groups:
        group["foreach"] = group["fused"] = False
    for number in range(10, 10 + steps):
        for optimizer in (ours, theirs):
            give(optimizer, number)
            optimizer.step()
        assert_same_state(ours, theirs, f"at {number},")
    return ours


@pytest.mark.parametrize("key", ["fused", "foreach"])
def test_a_stored_implementation_is_not_kept(backend, key):
    donor = trained_torch(**{key: True})
    assert donor.state_dict()["param_groups"][0][key] is True
    ours = resume_both(donor.state_dict(), donor, backend)
    for group in ours.state_dict()["param_groups"]:
        assert group["fused"] is None
        assert group["foreach"] is None


@pytest.mark.parametrize(
    "keys",
    [
        ["maximize"],
        ["nesterov"],
        ["foreach", "fused", "differentiable"],
        ["maximize", "nesterov", "foreach", "fused", "differentiable"],
    ],
    ids="+".join,
)
def test_old_checkpoints_that_miss_keys(backend, keys):
    donor = trained_torch()
    state = copy.deepcopy(donor.state_dict())
    for group in state["param_groups"]:
        for key in keys:
            del group[key]
    resume_both(state, donor, backend)


@pytest.mark.parametrize("which", [[0], [1], [0, 1]], ids=str)
@pytest.mark.parametrize("how", ["none", "gone", "empty"])
def test_states_that_cover_only_some_parameters(backend, which, how):
    donor = trained_torch()
    state = copy.deepcopy(donor.state_dict())
    for key in which:
        if how == "none":
            state["state"][key]["momentum_buffer"] = None
        elif how == "gone":
            del state["state"][key]
        else:
            state["state"][key] = {}
    resume_both(state, donor, backend)


@pytest.mark.parametrize("stored", [torch.float64, torch.bfloat16], ids=str)
def test_momenta_stored_in_another_dtype_are_cast_as_torch_casts(backend, stored):
    donor = trained_torch()
    state = copy.deepcopy(donor.state_dict())
    for entry in state["state"].values():
        entry["momentum_buffer"] = entry["momentum_buffer"].to(stored)
    ours = resume_both(state, donor, backend)
    for group in ours.param_groups:
        assert momentum(ours, group["params"][0]).dtype is torch.float32


def test_a_rate_stored_as_tensor_is_read(backend):
    donor = trained_torch()
    state = copy.deepcopy(donor.state_dict())
    state["param_groups"][0]["lr"] = torch.tensor(0.3)
    ours = FusedDecaySGD(groups([0.9, 0.9]), lr=0.9, backend=backend)
    ours.load_state_dict(state)
    assert rates(ours) == [float(torch.tensor(0.3)), 0.2]
    assert type(rates(ours)[0]) is float


def test_named_parameters_and_their_names(backend):
    names = ["weight", "bias"]

    def named(kind, **kwargs):
        return kind([(n, leaf(numbers(9, seed=i))) for i, n in enumerate(names)], lr=0.1, **kwargs)

    ours, theirs = named(FusedDecaySGD, backend=backend), named(sgd)
    for number in range(3):
        for optimizer in (ours, theirs):
            give(optimizer, number)
            optimizer.step()
    assert_same_state(ours, theirs)
    assert ours.state_dict()["param_groups"][0]["param_names"] == names
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["param_names"] == names


def test_a_state_saved_early_goes_to_an_optimizer_made_of_the_same_tensors(backend):
    param = leaf(numbers(33))
    ours = FusedDecaySGD([param], lr=0.1, momentum=0.9, backend=backend)
    param.grad = numbers(33, seed=1)
    ours.step()
    after_one = param.detach().clone()
    state = copy.deepcopy(ours.state_dict())
    ours.step()
    after_two = param.detach().clone()
    param.data.copy_(after_one)
    again = FusedDecaySGD([param], lr=0.5, backend=backend)
    again.load_state_dict(state)
    again.step()
    assert_same_bits(param, after_two)
