"""The schedule on a device: kernels decide as torch and the host's twin do."""

import copy
import math

import pytest
import torch
from cases import COMPOSITIONS, PLATEAUS, STEPPED, Schedule, named
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bits import assert_same_bits, assert_same_rates
from support.inside import copies_on_devices, program_of
from support.loops import RATES, Race, group_counts, momenta
from support.programs import EVENTS, PLATEAU, SEGMENT, groups, program
from support.tape import assert_the_device_agrees
from support.twin import assert_same_state, leaf, numbers, rates, sgd
from torch.optim import lr_scheduler

import lrfused
from lrfused import FusedDecaySGD, backends
from lrfused.rates import rates as rates_module
from lrfused.rates.metric import mean

NOISE = [1.0, 0.5, 0.6, 0.55, 0.49, 0.49, 0.7, math.nan, 0.3, 0.31, 0.29996, 0.31, -0.4, math.inf]


def agrees(optimizer):
    assert copies_on_devices(program_of(optimizer))
    assert_the_device_agrees(program_of(optimizer))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(SEGMENT, max_size=12), st.lists(PLATEAU, max_size=4), EVENTS.map(lambda e: e[:20]))
def test_a_device_runs_any_program_as_its_twins_do(device, segments, plateaus, events):
    made, cells = program(backends.choose(device).Program, segments, plateaus)
    there = made.copy_on(torch.device("cpu"))
    for metric in events:
        if metric is None:
            made.advance(groups())
        else:
            made.observe(groups(), torch.tensor(metric), lambda before, after: None)
        assert_the_device_agrees(made)
    count = int(cells["recorded"])
    ours, theirs = there["history"][: 7 * 5].reshape(7, 5), cells["history"]
    assert repr(ours[:count].tolist()) == repr(theirs[:count].tolist())


@pytest.mark.parametrize("case", STEPPED[::3], ids=str)  # all run on the twins
def test_the_device_advances_as_torch_does(device, case):
    race = Race([case], device, RATES[group_counts(case)[0]], every=None)
    for group in race.opt.param_groups:
        group["params"][0].grad = torch.ones(1)
    race.step()
    for _ in range(14):
        race.advance()
        agrees(race.opt)


@pytest.mark.parametrize("cases", COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_the_device_runs_compositions_in_order(device, cases):
    race = Race(cases, device, RATES[2], every=None)
    race.opt.param_groups[0]["params"][0].grad = torch.ones(1)
    race.step()
    for step in range(12):
        if step == 7:
            race.write(0.3, group=1)
        race.advance()
        agrees(race.opt)


NOISE = [1.0, 0.5, 0.6, 0.55, 0.49, 0.49, 0.7, math.nan, 0.3, 0.31, 0.29996, 0.31, -0.4, math.inf]


@pytest.mark.parametrize("case", PLATEAUS, ids=str)
def test_the_device_decides_as_torchs_plateau_does(device, case):
    race = Race([case], device, RATES[group_counts(case)[0]])
    race.opt.param_groups[0]["params"][0].grad = torch.ones(1)
    race.step()
    for metric in NOISE:
        race.feed(torch.tensor(metric))
        agrees(race.opt)


def test_two_plateaus_beside_another_schedule(device):
    cases = named("ReduceLROnPlateau-hasty", "ExponentialLR-slow", "ReduceLROnPlateau-abs")
    race = Race(cases, device, RATES[2])
    race.opt.param_groups[0]["params"][0].grad = torch.ones(1)
    for turn, metric in enumerate(NOISE):
        for optimizer in (race.opt, race.torchs):
            optimizer.step()
        race.opt.scheduler.step(torch.tensor(metric) if turn % 3 else metric)
        race.torchs.feed(metric)
        assert_same_rates(rates(race.opt), rates(race.torchs.opt), f"turn {turn}")
        if turn % 3:  # a number is uploaded with the next step
            agrees(race.opt)


def test_a_table_is_compiled_anew_at_the_end_of_its_window(device, monkeypatch):
    monkeypatch.setattr(rates_module, "WINDOW", 5)
    race = Race(named("CosineAnnealingLR-odd", "LambdaLR-root"), device, RATES[2])
    race.opt.param_groups[0]["params"][0].grad = torch.ones(1)
    for _ in range(18):
        race.step()
        agrees(race.opt)


def test_a_schedule_on_a_device_is_loaded_copied_and_joined(device):
    def optimizer(backend):
        schedule = [lrfused.CosineAnnealingLR(7, 1e-3), lrfused.ReduceLROnPlateau(patience=0)]
        params = [leaf(numbers(n, seed=n)) for n in (33, 70)]
        return FusedDecaySGD(params, lr=0.1, momentum=0.9, schedule=schedule, backend=backend)

    both = optimizer(device), optimizer("reference")

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


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [
        ("OneCycleLR", {"max_lr": 0.2, "total_steps": 17, "three_phase": True}),
        ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 4, "base_momentum": 0.0}),
    ],
)
@pytest.mark.parametrize("nesterov", [False, True])
def test_a_momentum_that_is_cycled_moves_the_parameters_as_torch_does(
    device, kind, kwargs, nesterov
):
    case = Schedule("cycle", kind, kwargs)
    hyper = {"momentum": 0.5, "weight_decay": 0.01, "nesterov": nesterov}
    sizes = [(70,), (3, 5)]
    ours, theirs = (
        [{"params": [leaf(numbers(*shape))], "lr": 0.1} for shape in sizes] for _ in range(2)
    )
    ours[1]["schedule"] = None  # a group whose momentum stays
    opt = FusedDecaySGD(ours, **hyper, schedule=case.ours(), backend=device)
    first, second = (sgd([group], **hyper) for group in theirs)
    scheduler = case.torchs(first)
    for step in range(17):
        for index, other in enumerate((first, second)):
            for group in (opt.param_groups[index], other.param_groups[0]):
                group["params"][0].grad = numbers(*sizes[index], seed=step + index)
        if step == 9:
            opt.param_groups[0]["momentum"] = first.param_groups[0]["momentum"] = 0.123
        for optimizer in (opt, first, second):
            optimizer.step()
        scheduler.step()
        assert momenta(opt) == momenta(first) + momenta(second)
        assert_same_rates(rates(opt), rates(first) + rates(second))
        agrees(opt)
        for group, other in zip(opt.param_groups, (first, second), strict=True):
            mine, its = group["params"][0], other.param_groups[0]["params"][0]
            assert_same_bits(mine, its, f"step {step}")
            assert_same_bits(
                opt.state[mine]["momentum_buffer"], other.state[its]["momentum_buffer"]
            )


@pytest.mark.parametrize("nan", ["bad", "ignore"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_device_decides_on_means_and_drops_nan_if_asked(device, accumulate, nan):
    def optimizer(backend):
        beyond = {"accumulate": accumulate, "nan": nan}
        schedule = lrfused.ReduceLROnPlateau(patience=0, factor=0.5, **beyond)
        return FusedDecaySGD([leaf(numbers(3))], lr=0.1, schedule=schedule, backend=backend)

    both = optimizer(device), optimizer("reference")
    for metric in NOISE * 2:
        for each in both:
            each.param_groups[0]["params"][0].grad = numbers(3)
            each.step()
            each.scheduler.step(torch.tensor(metric))
        assert_same_state(*both)
        assert repr(both[0].scheduler.state_dict()) == repr(both[1].scheduler.state_dict())
        assert both[0].lr_history() == both[1].lr_history()
        agrees(both[0])
    assert rates(both[0])[0] < 0.1


def test_a_torch_run_goes_on_where_it_was_on_a_device(device):
    mine, other = leaf(numbers(33)), leaf(numbers(33))
    before, theirs = (sgd([p], lr=0.1, momentum=0.9) for p in (mine, other))
    first, scheduler = (lr_scheduler.OneCycleLR(each, 0.2, 12) for each in (before, theirs))
    ours = before
    for step in range(12):
        for p in (mine, other):
            p.grad = numbers(33, seed=step)
        ours.step()
        theirs.step()
        scheduler.step()
        if step < 5:
            first.step()
        assert_same_state(ours, theirs)
        assert momenta(ours) == momenta(theirs)
        if step == 4:
            ours, _ = lrfused.fuse(before, first, backend=device, schedule_every=1)
        elif step > 4:
            agrees(ours)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_a_metric_on_a_device_is_averaged_over_ranks_there(device):
    import torch.distributed as dist

    group = dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        got = mean(torch.tensor([[0.1]], requires_grad=True), group)
        assert isinstance(got, torch.Tensor)
        assert got.dtype == torch.float64
        assert got.item() == torch.tensor(0.1).item()
        schedule = lrfused.ReduceLROnPlateau(patience=0, process_group=dist.group.WORLD)
        p = leaf(numbers(3))
        p.grad = numbers(3)
        opt = FusedDecaySGD([p], lr=0.1, schedule=schedule, backend=device)
        opt.step()
        for _ in range(2):
            opt.scheduler.step(torch.tensor(1.0))
            agrees(opt)
        assert rates(opt) == [0.1 * 0.1]
    finally:
        dist.destroy_process_group()
