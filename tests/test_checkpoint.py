"""Saving, loading and copying: what goes on afterwards goes on with the same bits."""

import copy
import io
import pickle

import pytest
import torch
from cases import COMPOSITIONS, HYPER, SCHEDULES, WITH_PLATEAU
from support.bits import assert_same_bits
from support.loops import RATES, group_counts
from support.twin import assert_same_state, assert_unchanged, leaf, numbers, rates, snapshot

from lrfused import ExponentialLR, FusedDecaySGD, StepLR

pytestmark = pytest.mark.backends(
    "host", reason="test_device_schedule.py runs schedules on a device"
)

STEPS = 40
POINTS = [0, 1, 7, 23]
CHAINS = {
    **{str(case): [case] for case in SCHEDULES},
    **{name: cases for table in (COMPOSITIONS, WITH_PLATEAU) for name, cases in table.items()},
}


def through_a_file(state):
    """Save a state and load it as a stranger would: no code from the file is run."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Run:
    """A training run whose gradients and metrics depend on the step alone."""

    def __init__(self, cases, backend, values=None, lrs=None, hyper="maximize-all", **extra):
        lrs = lrs or RATES[max(group_counts(cases[0]))]
        values = values or [numbers(70, seed=i) for i in range(2 * len(lrs))]
        params = [leaf(value) for value in values]
        groups = [{"params": params[2 * i : 2 * i + 2], "lr": lr} for i, lr in enumerate(lrs)]
        self.params, self.cases, self.done = params, cases, 0
        ours = [case.ours() for case in cases]
        schedule = ours[0] if len(ours) == 1 else ours
        self.opt = FusedDecaySGD(
            groups, backend=backend, schedule=schedule, **{**HYPER[hyper], **extra}
        )

    def step(self):
        for i, p in enumerate(self.params):
            p.grad = numbers(*p.shape, dtype=p.dtype, seed=1000 * self.done + i)
        self.opt.step()
        self.done += 1
        if self.done % 2 and any(case.is_plateau for case in self.cases):
            self.opt.scheduler.step(1.0 + self.done % 5)

    def to(self, step):
        while self.done < step:
            self.step()
        return self


@pytest.mark.parametrize("cases", CHAINS.values(), ids=CHAINS)
def test_resumed_runs_have_the_same_bits(backend, cases):
    whole, saved = Run(cases, backend), {}
    for point in POINTS:
        whole.to(point)
        state = through_a_file(whole.opt.state_dict())
        saved[point] = (state, [p.detach().clone() for p in whole.params], rates(whole.opt))
    whole.to(STEPS)
    for point, (state, values, lrs) in saved.items():
        resumed = Run(cases, backend, values, lrs=[0.9, 0.8][: len(lrs)])
        resumed.opt.load_state_dict(state)
        assert rates(resumed.opt) == lrs
        resumed.done = point
        resumed.to(STEPS)
        assert_same_state(resumed.opt, whole.opt, f"resumed at {point},")
        assert resumed.opt.scheduler.last_epoch == whole.opt.scheduler.last_epoch
        ours, theirs = (opt.scheduler.state_dict() for opt in (resumed.opt, whole.opt))
        assert without_members_rates(ours) == without_members_rates(theirs)


def without_members_rates(state):
    """Leave out the last rates of a composition's members, of interest while they are at work."""
    members = [without_members_rates(member) for member in state.get("_schedulers", ())]
    for member in members:
        del member["_last_lr"]
    return {**state, "_schedulers": members}


@pytest.mark.parametrize("order", ["handle-optimizer", "optimizer-handle", "handle-only-late"])
@pytest.mark.parametrize("cases", CHAINS.values(), ids=CHAINS)
def test_the_order_of_loading_does_not_matter(backend, cases, order):
    whole = Run(cases, backend).to(13)
    optimizer = copy.deepcopy(whole.opt.state_dict())
    handle = copy.deepcopy(whole.opt.scheduler.state_dict())
    resumed = Run(cases, backend, [p.detach() for p in whole.params])
    loads = [resumed.opt.load_state_dict, resumed.opt.scheduler.load_state_dict]
    states = [optimizer, handle]
    if order == "handle-optimizer":
        loads.reverse()
        states.reverse()
    if order == "handle-only-late":
        resumed.to(3)
        for p, q in zip(resumed.params, whole.params, strict=True):
            p.data.copy_(q.data)
    for load, state in zip(loads, states, strict=True):
        load(state)
    resumed.done = 13
    whole.to(30)
    resumed.to(30)
    assert_same_state(resumed.opt, whole.opt, order)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("cases", CHAINS.values(), ids=CHAINS)
def test_copies_go_on_with_the_same_bits(backend, cases, how):
    whole = Run(cases, backend).to(9)
    pair = (whole.params, whole.opt)
    copied = copy.copy(whole)
    copied.params, copied.opt = (
        copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
    )
    assert copied.opt.scheduler is not whole.opt.scheduler
    before = snapshot(whole.opt)
    copied.to(STEPS)
    assert_unchanged(whole.opt, before)
    whole.to(STEPS)
    assert_same_state(copied.opt, whole.opt, how)
    assert copied.opt.scheduler.last_epoch == whole.opt.scheduler.last_epoch


def plain(value):
    """Return whether a value is plain data all through."""
    if isinstance(value, dict):
        return all(isinstance(k, (str, int)) and plain(v) for k, v in value.items())
    if type(value) in (list, tuple):
        return all(plain(v) for v in value)
    return value is None or type(value) in (int, float, bool, str)


@pytest.mark.parametrize("cases", CHAINS.values(), ids=CHAINS)
def test_the_state_is_plain_data(backend, cases):
    state = Run(cases, backend).to(5).opt.state_dict()
    assert set(state) == {"state", "param_groups"}
    for group in state["param_groups"]:
        assert plain(group), group
        assert type(group["lr"]) is float
        assert group["fused"] is None
        assert group["foreach"] is None
        assert "schedule" in group
    for key, entry in state["state"].items():
        assert type(key) is int
        assert all(torch.is_tensor(v) and v.dim() > 0 for v in entry.values())


@pytest.mark.parametrize("cases", CHAINS.values(), ids=CHAINS)
def test_a_state_taken_does_not_change_as_the_run_goes_on(backend, cases):
    run = Run(cases, backend).to(5)
    optimizer, handle = run.opt.state_dict()["param_groups"], run.opt.scheduler.state_dict()
    groups, before = copy.deepcopy(optimizer), copy.deepcopy(handle)
    run.to(20)
    assert optimizer == groups
    assert handle == before


def test_a_state_loaded_is_not_written_to(backend):
    cases = CHAINS["plateau-step"]
    donor = Run(cases, backend).to(5)
    optimizer = copy.deepcopy(donor.opt.state_dict())
    handle = copy.deepcopy(donor.opt.scheduler.state_dict())
    groups, before = copy.deepcopy(optimizer["param_groups"]), copy.deepcopy(handle)
    run = Run(cases, backend)
    run.opt.load_state_dict(optimizer)
    run.opt.scheduler.load_state_dict(handle)
    run.to(20)
    assert optimizer["param_groups"] == groups
    assert handle == before


def test_the_position_within_schedule_every_is_resumed(backend):
    cases = CHAINS["StepLR-each"]
    whole = Run(cases, backend, schedule_every=5).to(13)
    resumed = Run(cases, backend, [p.detach() for p in whole.params], schedule_every=5)
    resumed.opt.load_state_dict(through_a_file(whole.opt.state_dict()))
    resumed.done = 13
    for _ in range(9):
        whole.step()
        resumed.step()
        assert rates(whole.opt) == rates(resumed.opt)


def test_loading_its_own_state_changes_nothing(backend):
    run = Run(CHAINS["multistep-cosine-exponential"], backend).to(11)
    before = snapshot(run.opt)
    run.opt.load_state_dict(run.opt.state_dict())
    run.opt.scheduler.load_state_dict(run.opt.scheduler.state_dict())
    assert_unchanged(run.opt, before)


CORRUPTED = {
    "no-groups": lambda s: s.pop("param_groups"),
    "no-state": lambda s: s.pop("state"),
    "a-group-less": lambda s: s["param_groups"].pop(),
    "a-parameter-less": lambda s: s["param_groups"][1]["params"].pop(),
    "schedule-number": lambda s: s["param_groups"][1].update(schedule=3),
    "schedule-word": lambda s: s["param_groups"][1].update(schedule="StepLR"),
    "schedule-stranger": lambda s: s["param_groups"][1].update(schedule={"nonsense": 1}),
    "schedule-list": lambda s: s["param_groups"][1].update(schedule=[{"nonsense": 1}]),
    "lr-word": lambda s: s["param_groups"][1].update(lr="fast"),
    "lr-none": lambda s: s["param_groups"][1].update(lr=None),
    "momentum-word": lambda s: s["param_groups"][1].update(momentum="much"),
    "buffer-shape": lambda s: s["state"][3].update(momentum_buffer=torch.ones(69)),
    "buffer-word": lambda s: s["state"][3].update(momentum_buffer="lost"),
}


@pytest.mark.parametrize("corrupt", CORRUPTED.values(), ids=CORRUPTED)
def test_a_corrupted_state_is_refused_and_nothing_changes(backend, corrupt):
    cases = CHAINS["StepLR-third"]
    state = copy.deepcopy(Run(cases, backend, lrs=RATES[2]).to(9).opt.state_dict())
    corrupt(state)
    run = Run(cases, backend, lrs=RATES[2]).to(4)
    before = snapshot(run.opt)
    with pytest.raises((KeyError, ValueError, TypeError, RuntimeError)):
        run.opt.load_state_dict(state)
    assert_unchanged(run.opt, before)
    beside = Run(cases, backend, lrs=RATES[2]).to(9)
    run.to(9)
    assert_same_state(run.opt, beside.opt)


def test_the_state_of_another_schedule_is_refused_and_nothing_changes(backend):
    donor = Run(CHAINS["CosineAnnealingLR-ten"], backend).to(9).opt
    for cases in (CHAINS["StepLR-third"], CHAINS["ExponentialLR-usual"], CHAINS["step-lambda"]):
        run = Run(cases, backend).to(4)
        before = snapshot(run.opt)
        with pytest.raises((KeyError, ValueError, TypeError, RuntimeError)):
            run.opt.load_state_dict(donor.state_dict())
        assert_unchanged(run.opt, before)
        with pytest.raises((KeyError, ValueError, TypeError, RuntimeError)):
            run.opt.scheduler.load_state_dict(donor.scheduler.state_dict())
        assert_unchanged(run.opt, before)


FOREIGN = {
    "empty": {},
    "stranger": {"nonsense": 1},
    "epoch-word": {"last_epoch": "nine"},
    "none": None,
    "list": [1, 2],
}


@pytest.mark.parametrize("state", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_state_of_the_handle_is_refused_and_nothing_changes(backend, state):
    run = Run(CHAINS["StepLR-third"], backend).to(4)
    if state and "last_epoch" in state:
        state = {**run.opt.scheduler.state_dict(), **state}
    before = snapshot(run.opt)
    with pytest.raises((KeyError, ValueError, TypeError, AttributeError, RuntimeError)):
        run.opt.scheduler.load_state_dict(state)
    assert_unchanged(run.opt, before)


def test_capturable_cells_are_saved_as_numbers(backend):
    params = [leaf(numbers(9))]
    opt = FusedDecaySGD(
        params, lr=0.1, schedule=ExponentialLR(0.9), capturable=True, backend=backend
    )
    opt.step()
    state = through_a_file(opt.state_dict())
    assert state["param_groups"][0]["lr"] == 0.1 * 0.9
    assert type(state["param_groups"][0]["lr"]) is float
    fresh = FusedDecaySGD([leaf(numbers(9))], lr=0.5, schedule=ExponentialLR(0.9), backend=backend)
    fresh.load_state_dict(state)
    assert rates(fresh) == [0.1 * 0.9]
    assert_same_bits(params[0], numbers(9))


def test_a_state_without_schedule_loads_where_there_is_one_and_the_reverse(backend):
    without = FusedDecaySGD([leaf(numbers(9))], lr=0.3, momentum=0.9, backend=backend)
    with_one = FusedDecaySGD([leaf(numbers(9))], lr=0.1, schedule=StepLR(1), backend=backend)
    with_one.load_state_dict(without.state_dict())
    assert rates(with_one) == [0.3]
    with_one.step()
    assert rates(with_one) == [0.3 * 0.1]
