"""amp="fused": GradScaler leaves unscaling and skipping to the step; all equals torch's loop."""

import copy
import pickle

import pytest
import torch
from cases import HYPER
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bits import assert_same_bits
from support.twin import assert_same_state, leaf, momentum, numbers, rates, sgd

from lrfused import ExponentialLR, FusedDecaySGD, ReduceLROnPlateau, StepLR

pytestmark = pytest.mark.backends(
    "host", "emulated", reason="test_gpu_scaling.py runs the like of these on a GPU"
)

SIZES = (1, 33, 1025)
HYPERS = {name: HYPER[name] for name in ("plain", "momentum-decay", "maximize-nesterov-decay")}
randomly = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def scaler_of(**kwargs):
    return torch.amp.GradScaler("cpu", **{"init_scale": 2.0**10, "growth_interval": 3, **kwargs})


@st.composite
def loops(draw):
    steps = draw(st.integers(2, 7))
    return {
        "hyper": draw(st.sampled_from(list(HYPERS.values()))),
        "dtype": draw(st.sampled_from([torch.float32, torch.float64])),
        "scale": draw(st.sampled_from([2.0**16, 1.0, 3.0, 0.7, 1e-3])),
        "advance": draw(st.sampled_from(["always", "on_update"])),
        "every": draw(st.sampled_from([1, 1, 2, 3])),
        "overflows": draw(st.sets(st.integers(0, steps - 1))),
        "by_hand": draw(st.sets(st.integers(0, steps - 1))),  # unscale_ and clip_grad_norm_
        "disabled": draw(st.booleans()) and draw(st.booleans()),
        "steps": steps,
    }


class Loop:
    """One training loop; the schedule of torch's is stepped by the loop."""

    def __init__(self, run, make):
        self.run = run
        self.params = [leaf(numbers(n, dtype=run["dtype"], seed=n)) for n in SIZES]
        self.optimizer = make(self.params, lr=0.1, **run["hyper"])
        self.scaler = scaler_of(init_scale=run["scale"], enabled=not run["disabled"])

    def step(self, step):
        self.optimizer.zero_grad()
        products = (p * numbers(*p.shape, dtype=p.dtype, seed=step + 20) for p in self.params)
        loss = sum(x.sum() for x in products) * (torch.inf if self.overflows(step) else 1)
        self.scaler.scale(loss).backward()
        if step in self.run["by_hand"]:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def overflows(self, step):
        return step in self.run["overflows"] and not self.run["disabled"]


@settings(randomly, max_examples=50)
@given(run=loops())
def test_any_loop_with_gradscaler_equals_torchs(backend, run):
    def fused(params, **hyper):
        return FusedDecaySGD(
            params, amp="fused", advance=run["advance"], schedule=StepLR(2, gamma=0.7),
            schedule_every=run["every"], backend=backend, **hyper,
        )  # fmt: skip

    ours, theirs = Loop(run, fused), Loop(run, sgd)
    scheduler = torch.optim.lr_scheduler.StepLR(theirs.optimizer, 2, gamma=0.7)
    count = 0
    for step in range(run["steps"]):
        for loop in (ours, theirs):
            loop.step(step)
        count += run["advance"] == "always" or not theirs.overflows(step)
        if count == run["every"]:
            count = 0
            theirs.optimizer._opt_called = True  # torch warns where the first step was skipped
            scheduler.step()
        assert ours.scaler.get_scale() == theirs.scaler.get_scale()
        assert_same_state(ours.optimizer, theirs.optimizer, f"step {step},")


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(7, 33)
        self.second = torch.nn.Linear(33, 5)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("amp", [None, "fused"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_net_under_autocast_stays_the_same(backend, dtype, amp):
    torch.manual_seed(3)
    first = Net()
    second = copy.deepcopy(first)
    x, y = numbers(16, 7, seed=1) * 30, numbers(16, 5, seed=2)
    hyper = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-3}
    ours = FusedDecaySGD(first.parameters(), amp=amp, backend=backend, **hyper)
    theirs = sgd(second.parameters(), **hyper)
    skipped = 0
    scalers = [scaler_of(init_scale=2.0**18) for _ in range(2)]
    for step in range(12):
        for net, optimizer, scaler in zip((first, second), (ours, theirs), scalers, strict=True):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = torch.nn.functional.mse_loss(net(x).float(), y)
            scaler.scale(loss).backward()
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            skipped += scaler.get_scale() < before
        assert scalers[0].get_scale() == scalers[1].get_scale()
        assert_same_state(ours, theirs, f"step {step},")
    assert (skipped > 0) == (dtype is torch.float16)  # bf16 has the range of fp32


def overflow_first(optimizer, param):
    """Make a step that overflows and one that does not."""
    scaler = scaler_of()
    for factor in (torch.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale((param * 2).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        yield


@pytest.mark.parametrize("amp", [None, "fused"])
def test_a_skipped_first_step_commits_nothing(backend, amp):
    param, other = leaf(numbers(70)), leaf(numbers(70))
    ours = FusedDecaySGD([param], lr=0.1, momentum=0.9, dampening=0.5, amp=amp, backend=backend)
    theirs = sgd([other], lr=0.1, momentum=0.9, dampening=0.5)
    version = param._version
    steps = overflow_first(ours, param), overflow_first(theirs, other)
    for loop in steps:
        next(loop)
    assert not ours.state
    assert param._version == version
    assert_same_bits(param, other)
    for loop in steps:
        next(loop)
    assert_same_state(ours, theirs)


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="a fault of torch 2.13")
def test_torchs_fused_sgd_commits_uninitialised_memory():
    param = leaf(numbers(70))
    theirs = torch.optim.SGD([param], lr=0.1, momentum=0.9, fused=True)
    loop = overflow_first(theirs, param)
    next(loop)
    buffer = momentum(theirs, param)
    assert buffer is not None  # of a step that was not made
    buffer.fill_(777.0)  # what the memory held: any number
    next(loop)
    assert_same_bits(momentum(theirs, param), 0.9 * torch.full((70,), 777.0) + 2)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("advance", ["always", "on_update"])
def test_the_schedule_advances_or_rests_in_a_skipped_step(backend, advance, every):
    param = leaf(numbers(33))
    optimizer = FusedDecaySGD(
        [param], lr=0.1, schedule=[ExponentialLR(0.5), ReduceLROnPlateau()], schedule_every=every,
        amp="fused", advance=advance, backend=backend,
    )  # fmt: skip
    turns = 0
    for step in range(9):
        param.grad = numbers(33, seed=step)
        optimizer.found_inf = torch.tensor(float(step % 3 == 1))
        used = rates(optimizer)
        optimizer.step()
        turns += step % 3 != 1 or advance == "always"
        assert optimizer.lr_used == used
        assert optimizer.scheduler.last_epoch == turns // every
        assert rates(optimizer) == [0.1 * 0.5 ** (turns // every)]
    assert len(optimizer.lr_history().steps) == turns // every


def test_without_amp_the_scaler_leaves_out_the_step_and_its_schedule(backend):
    param = leaf(numbers(33))
    optimizer = FusedDecaySGD([param], lr=0.1, schedule=ExponentialLR(0.5), backend=backend)
    for _ in overflow_first(optimizer, param):
        pass
    assert optimizer.scheduler.last_epoch == 1


def test_amp_and_advance_survive_copies(backend):
    optimizer = FusedDecaySGD(
        [leaf(numbers(3))], lr=0.1, amp="fused", advance="on_update", schedule=ExponentialLR(0.5),
        backend=backend,
    )  # fmt: skip
    for made in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert made._step_supports_amp_scaling
        made.found_inf = 1
        made.step()
        assert made.scheduler.last_epoch == 0
    assert not FusedDecaySGD([leaf(numbers(3))], lr=0.1)._step_supports_amp_scaling


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"amp": True}, "amp must be"),
        ({"amp": "unfused"}, "amp must be"),
        ({"advance": "never"}, "advance must be"),
        ({"advance": "on_update", "schedule_every": None}, r"(?s)on_update.*schedule_every=None"),
    ],
    ids=str,
)
def test_other_arguments_are_refused(kwargs, match):
    with pytest.raises(ValueError, match=match):
        FusedDecaySGD([leaf(numbers(3))], lr=0.1, **kwargs)
