"""Whole runs drawn at random against the oracle: groups, gradients, schedules, meddling users."""

import pytest
import torch
from cases import COMPOSITIONS, DTYPES, STEPPED, TORCH_IS_ORACLE, WITH_PLATEAU
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bits import assert_same_bits, assert_same_rates
from support.loops import Torchs
from support.twin import assert_same_state, leaf, momentum, numbers, rates

from lrfused import FusedDecaySGD
from lrfused.reference import ReferenceDecaySGD

pytestmark = pytest.mark.backends(
    "host", reason="test_device_schedule.py runs schedules on a device"
)

CHAINS = [
    [],
    *([case] for case in STEPPED if case.groups is None),
    *COMPOSITIONS.values(),
    *WITH_PLATEAU.values(),
]
randomly = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def hypers(draw):
    hyper = {
        "lr": draw(st.floats(0, 2, allow_subnormal=True)),
        "momentum": draw(st.sampled_from([0, 0.0, 0.5, 0.9, 0.99, 1.0])),
        "weight_decay": draw(st.sampled_from([0, 0.0, 1e-4, 0.1]) | st.floats(0, 1)),
        "maximize": draw(st.booleans()),
    }
    if hyper["momentum"] and draw(st.booleans()):
        hyper["nesterov"] = True
    else:
        hyper["dampening"] = draw(st.sampled_from([0, 0.1, 1.0]) | st.floats(-1, 1))
    return hyper


sizes = st.lists(st.integers(0, 70) | st.sampled_from([1023, 1025, 4097]), min_size=1, max_size=4)


@st.composite
def runs(draw, steps):
    groups = draw(st.lists(st.tuples(hypers(), sizes), min_size=1, max_size=3))
    return {
        "groups": groups,
        "dtype": draw(st.sampled_from(DTYPES)),
        "chain": draw(st.sampled_from(CHAINS)),
        "every": draw(st.sampled_from([1, 1, 2, 5, None])),
        "late": draw(st.lists(st.integers(0, 6), min_size=12, max_size=12)),
        "missing": draw(st.integers(2, 9)),
        "writes": draw(
            st.dictionaries(st.integers(0, steps), st.floats(0, 3), max_size=3, min_size=0)
        ),
        "steps": steps,
    }


class Player:
    """Play one drawn run on one optimizer."""

    def __init__(self, run, build):
        self.run = run
        self.groups = [
            {
                "params": [
                    leaf(numbers(size, dtype=run["dtype"], seed=100 * i + j))
                    for j, size in enumerate(sizes)
                ],
                **hyper,
            }
            for i, (hyper, sizes) in enumerate(run["groups"])
        ]
        self.params = [p for group in self.groups for p in group["params"]]
        self.it = build(self.groups)

    def give(self, step):
        for i, p in enumerate(self.params):
            absent = step < self.run["late"][i] or (step + i) % self.run["missing"] == 0
            p.grad = None
            if not absent:
                p.grad = numbers(*p.shape, dtype=p.dtype, seed=31 * step + i)


def build_ours(run, backend, kind=FusedDecaySGD):
    schedule = [case.ours() for case in run["chain"]]
    return lambda groups: kind(
        groups, schedule=schedule, schedule_every=run["every"], backend=backend
    )


class Step:
    """The rest of an iteration beside the update, for either loop."""

    @staticmethod
    def ours(opt, run, step):
        opt.step()
        if run["every"] is None and any(not c.is_plateau for c in run["chain"]):
            opt.scheduler.step()
        if step % 3 == 2 and any(c.is_plateau for c in run["chain"]):
            opt.scheduler.step(1 + step % 7)

    @staticmethod
    def torchs(torchs, run, step):
        torchs.step()
        if run["every"] is None:
            torchs.advance()
        if step % 3 == 2:
            torchs.feed(1 + step % 7)


def play(run, backend):
    """Play a run on both sides and compare at every step."""
    ours = Player(run, build_ours(run, backend))
    theirs = Player(run, lambda groups: Torchs(groups, run["chain"], run["every"]))
    bits = theirs
    if run["dtype"] not in TORCH_IS_ORACLE:
        bits = Player(run, build_ours(run, "reference", ReferenceDecaySGD))
    for step in range(run["steps"]):
        if step in run["writes"]:
            optimizers = [ours.it, theirs.it.opt] + ([bits.it] if bits is not theirs else [])
            for optimizer in optimizers:
                optimizer.param_groups[step % len(run["groups"])]["lr"] = run["writes"][step]
        for player in (ours, theirs):
            player.give(step)
        Step.ours(ours.it, run, step)
        Step.torchs(theirs.it, run, step)
        if bits is not theirs:
            bits.give(step)
            Step.ours(bits.it, run, step)
        assert_same_rates(rates(ours.it), rates(theirs.it.opt), f"step {step}")
        if step % 50 == 49 or step < 20:
            compare(ours, bits, step)
    compare(ours, bits, run["steps"])


def compare(ours, bits, step):
    if isinstance(bits.it, Torchs):
        assert_same_state(ours.it, bits.it.opt, f"step {step},")
        return
    for i, (p, q) in enumerate(zip(ours.params, bits.params, strict=True)):
        assert_same_bits(p, q, f"step {step}, parameter {i}")
        got, want = momentum(ours.it, p), momentum(bits.it, q)
        assert (got is None) == (want is None)
        if want is not None:
            assert_same_bits(got, want, f"step {step}, momentum {i}")


@settings(randomly, max_examples=120)
@given(run=runs(25))
def test_any_run_equals_the_oracle(backend, run):
    play(run, backend)


@settings(randomly, max_examples=4)
@given(run=runs(1_000))
def test_a_thousand_steps_equal_the_oracle(backend, run):
    play(run, backend)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(7, 33)
        self.second = torch.nn.Linear(33, 5)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("cases", [c for c in CHAINS if c], ids=lambda c: "+".join(map(str, c)))
def test_a_model_trained_on_its_own_loss_stays_the_same(backend, cases):
    torch.manual_seed(3)
    first = Net()
    second = Net()
    second.load_state_dict(first.state_dict())
    hyper = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
    opt = FusedDecaySGD(
        first.parameters(), schedule=[c.ours() for c in cases], backend=backend, **hyper
    )
    torchs = Torchs(list(second.parameters()), cases, **hyper)
    x, y = numbers(16, 7, seed=1), numbers(16, 5, seed=2)
    for step in range(40):
        losses = []
        for net, optimizer in ((first, opt), (second, torchs.opt)):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(net(x), y)
            loss.backward()
            losses.append(loss.item())
        assert repr(losses[0]) == repr(losses[1]), step
        opt.step()
        torchs.step()
        if any(c.is_plateau for c in cases):
            opt.scheduler.step(losses[0])
            torchs.feed(losses[1])
        assert rates(opt) == rates(torchs.opt), step
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert_same_bits(p, q)
