"""Checkpoints that go to torch.optim.SGD and its schedulers, and come back."""

import copy
import io

import pytest
import torch
from bits import assert_same_bits, assert_same_rates
from cases import DTYPES, HYPER, SCHEDULES, TORCH_IS_ORACLE, Schedule, Wave, named, with_lr
from loops import RATES, Torchs, product_ids, products
from twin import (
    assert_same_state,
    assert_unchanged,
    leaf,
    momentum,
    numbers,
    oracle,
    rates,
    sgd,
    snapshot,
)

from lrfused import FusedDecaySGD

PAIRS = products(SCHEDULES)


def groups(lrs, dtype=torch.float32, values=None):
    values = values or [numbers(70, dtype=dtype, seed=i) for i in range(len(lrs))]
    return [{"params": [leaf(v)], "lr": lr} for v, lr in zip(values, lrs, strict=True)]


def give(optimizer, step):
    for i, group in enumerate(optimizer.param_groups):
        for p in group["params"]:
            p.grad = numbers(*p.shape, dtype=p.dtype, seed=100 * step + i)


class Torch:
    """A run with torch, a metric at every second step."""

    def __init__(self, case, lrs, values=None):
        self.torchs = Torchs(groups(lrs, values=values), [case], **HYPER["momentum-decay"])
        self.opt, self.scheduler = self.torchs.opt, self.torchs.schedulers[0]

    def step(self, number):
        give(self.opt, number)
        self.torchs.step()
        if number % 2:
            self.torchs.feed(1.0 + number % 5)


class Ours:
    """The same run with FusedDecaySGD."""

    def __init__(self, case, lrs, backend, values=None):
        self.case = case
        self.opt = FusedDecaySGD(
            groups(lrs, values=values),
            schedule=case.ours(),
            backend=backend,
            **HYPER["momentum-decay"],
        )
        self.scheduler = self.opt.scheduler

    def step(self, number):
        give(self.opt, number)
        self.opt.step()
        if number % 2 and self.case.is_plateau:
            self.scheduler.step(1.0 + number % 5)


def values_of(run):
    return [p.detach().clone() for group in run.opt.param_groups for p in group["params"]]


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


OVERWRITTEN = {
    "LambdaLR": ({"lr_lambda": Wave(3.0)}, {"lr_lambda": Wave(7.0)}),
    "ReduceLROnPlateau": ({"patience": 9}, {"patience": 0, "factor": 0.5, "min_lr": 0.01}),
}
OTHERWISE = {
    "step_size": ("StepLR", {"step_size": 5}, {"step_size": 3}),
    "milestones": ("MultiStepLR", {"milestones": [4]}, {"milestones": [4, 4]}),
    "gamma": ("ExponentialLR", {"gamma": 0.9}, {"gamma": 0.5}),
    "T_max": ("CosineAnnealingLR", {"T_max": 5}, {"T_max": 16}),
    "factor": ("ConstantLR", {"factor": 0.5}, {"factor": 0.25}),
    "total_iters": ("LinearLR", {"total_iters": 50}, {"total_iters": 60}),
    "power": ("PolynomialLR", {"total_iters": 70}, {"total_iters": 70, "power": 2.0}),
    "T_mult": ("CosineAnnealingWarmRestarts", {"T_0": 4}, {"T_0": 4, "T_mult": 2}),
    "max_lrs": (
        "CyclicLR",
        {"base_lr": 0.1, "max_lr": 0.2, "step_size_up": 9},
        {"base_lr": 0.1, "max_lr": 0.3, "step_size_up": 9},
    ),
    "total_steps": (
        "OneCycleLR",
        {"max_lr": 0.2, "total_steps": 70},
        {"max_lr": 0.2, "total_steps": 80},
    ),
    "_milestones": (
        "SequentialLR",
        {"schedulers": named("LinearLR-default", "ExponentialLR-usual"), "milestones": [5]},
        {"schedulers": named("LinearLR-default", "ExponentialLR-usual"), "milestones": [6]},
    ),
    "gamma=0.9991, this optimizer's 0.9": (
        "ChainedScheduler",
        {"schedulers": named("LinearLR-default", "ExponentialLR-usual")},
        {"schedulers": named("LinearLR-default", "ExponentialLR-slow")},
    ),
}


def state_after(case, steps):
    donor = Torch(case, RATES[2])
    for number in range(steps):
        donor.step(number)
    return copy.deepcopy(donor.scheduler.state_dict())


@pytest.mark.parametrize("kind", OVERWRITTEN)
def test_loading_overwrites_as_in_torch(backend, kind):
    built, stored = (Schedule(kind, kind, copy.deepcopy(kwargs)) for kwargs in OVERWRITTEN[kind])
    state = state_after(stored, 12)
    want, ours = Torch(copy.deepcopy(built), RATES[2]), Ours(built, RATES[2], backend)
    for run in (want, ours):
        for number in range(3):
            run.step(number)
        run.scheduler.load_state_dict(copy.deepcopy(state))
    assert rates(ours.opt) == rates(want.opt)
    for number in range(12, 60):
        want.step(number)
        ours.step(number)
        assert_same_rates(rates(ours.opt), rates(want.opt), f"at {number}")
    assert ours.scheduler.last_epoch == want.scheduler.last_epoch


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_schedule_configured_otherwise_is_refused_by_name(backend, name):
    # torch takes the stored numbers over without a word: a longer T_max would be lost on resuming.
    kind, mine, theirs = OTHERWISE[name]
    run = Ours(Schedule(kind, kind, mine), RATES[2], backend)
    for number in range(3):
        run.step(number)
    before = snapshot(run.opt)
    with pytest.raises(ValueError, match=name):
        run.scheduler.load_state_dict(state_after(Schedule(kind, kind, theirs), 12))
    assert_unchanged(run.opt, before)


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_schedule_configured_otherwise_is_taken_over_if_asked(backend, name):
    kind, mine, theirs = OTHERWISE[name]
    state = state_after(Schedule(kind, kind, theirs), 12)
    built = Schedule(kind, kind, mine)
    want, ours = Torch(built, RATES[2]), Ours(built, RATES[2], backend)
    want.scheduler.load_state_dict(copy.deepcopy(state))
    ours.scheduler.load_state_dict(copy.deepcopy(state), override=True)
    for number in range(12, 60):
        want.step(number)
        ours.step(number)
        assert_same_rates(rates(ours.opt), rates(want.opt), f"at {number}")


def test_a_checkpoint_configured_otherwise_is_taken_over_if_asked(backend):
    saved = Ours(named("CosineAnnealingLR-ten")[0], RATES[2], backend)
    for number in range(7):
        saved.step(number)
    run = Ours(named("CosineAnnealingLR-long")[0], RATES[2], backend)
    before = snapshot(run.opt)
    with pytest.raises(ValueError, match=r"T_max=10, this optimizer's 2000; override=True"):
        run.opt.load_state_dict(saved.opt.state_dict())
    assert_unchanged(run.opt, before)
    run.opt.load_state_dict(copy.deepcopy(saved.opt.state_dict()), override=True)
    for number in range(7, 40):
        saved.step(number)
        run.step(number)
        assert rates(run.opt) == rates(saved.opt)


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
