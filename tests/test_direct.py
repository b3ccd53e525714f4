"""Steps in one call of the extension, made where nothing is unusual, and nowhere else.

Every change of CHANGES is made between two steps of two optimizers, of which one makes every step
in Python. Their groups, parameters, state and history must be the same after each step.
"""

import gc
import importlib
import itertools
import random
import warnings
import weakref

import numpy as np
import pytest
import torch
from support.bits import assert_same_bits
from support.changes import CHANGES, OPTIONS, Twin
from support.tape import not_emulated
from support.twin import leaf, numbers
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lrfused import (
    FusedDecaySGD,
    StepLR,
)
from lrfused.backends.compiled import Compiled
from lrfused.backends.cuda import Cuda


@pytest.fixture(params=["compiled", "cuda"])
def kind(request):
    """Return the name of a backend that makes direct steps."""
    if request.param == "cuda" and (why := not_emulated("cuda")):
        pytest.skip(f"cuda: {why}")
    return request.param


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_change_between_two_steps_is_seen(options, change, kind):
    twins = [Twin(options, direct, kind) for direct in (True, False)]
    for i in range(9):
        for t in twins:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected call of")
                if i == 4:
                    change(t)
                t.step()
                if t.by_hand():
                    t.advance()
        ours, python = twins
        assert ours.seen() == python.seen()
        for a, b in zip(ours.tensors(), python.tensors(), strict=True):
            assert_same_bits(a, b)
    for t in twins:
        for each in t.held:
            if hasattr(each, "remove"):
                each.remove()


PAIRS = random.Random(7).sample(list(itertools.product(OPTIONS, CHANGES, CHANGES)), 150)


@pytest.mark.parametrize(("name", "first", "second"), PAIRS, ids="-".join)
def test_two_changes_in_a_row_are_seen(name, first, second, kind):
    twins = [Twin(OPTIONS[name], direct, kind) for direct in (True, False)]
    raised = [[], []]
    for i in range(9):
        for t, errors in zip(twins, raised, strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for act in [CHANGES[first]] if i == 4 else [CHANGES[second]] if i == 5 else []:
                    try:
                        act(t)
                    except (TypeError, ValueError, RuntimeError, KeyError, IndexError) as error:
                        errors.append(f"{type(error).__name__}: {error}")
                try:
                    t.step()
                    if t.by_hand():
                        t.advance()
                except (TypeError, ValueError, RuntimeError, KeyError) as error:
                    errors.append(f"{type(error).__name__}: {error}")
        assert raised[0] == raised[1]
        assert twins[0].seen() == twins[1].seen()
        for a, b in zip(twins[0].tensors(), twins[1].tensors(), strict=True):
            assert_same_bits(a, b)
    for t in twins:
        for each in t.held:
            if hasattr(each, "remove"):
                each.remove()


# -- code of the user's that runs inside of a step -----------------------------------------------


def direct_one(kind, **options):
    p = leaf(numbers(5))
    optimizer = FusedDecaySGD([p], lr=0.1, backend=kind, **options)
    for i in range(3):
        p.grad = numbers(5, seed=i)
        optimizer.step()
    p.grad = torch.ones(5)
    assert kind == "cuda" or optimizer._internals.rates.direct is not None
    return p, optimizer


def test_the_norm_that_a_step_replaces_may_run_code(kind):
    p, optimizer = direct_one(kind, max_grad_norm=1e9)
    before, freed = p.detach().clone(), []

    def free():
        optimizer.zero_grad()
        freed.extend(torch.full((5,), 7e7) for _ in range(200))

    weakref.finalize(optimizer.grad_norm, free)
    optimizer.step()
    assert freed
    assert_same_bits(p, torch.add(before, torch.ones(5), alpha=-0.1))


def test_a_mode_may_drop_gradients_inside_of_a_step(kind):
    p, optimizer = direct_one(kind, max_grad_norm=1e9)
    before, freed = p.detach().clone(), []

    class Dropping(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            p.grad = None
            freed.append([torch.full((5,), 7e7) for _ in range(50)])
            return function(*args, **(kwargs or {}))

    with Dropping():
        optimizer.step()
    assert_same_bits(p, torch.add(before, torch.ones(5), alpha=-0.1))


def test_a_setting_may_step_another_optimizer(kind):
    p, optimizer = direct_one(kind)
    other, second = direct_one(kind)
    second.param_groups[0]["lr"] = 100.0
    before, after = p.detach().clone(), other.detach().clone()

    class Stepping:
        def __float__(self):
            second.step()
            return 0.0

    optimizer.param_groups[0]["weight_decay"] = Stepping()
    optimizer.step()
    assert_same_bits(p, torch.add(before, torch.ones(5), alpha=-0.1))
    assert not torch.equal(other, after)


def test_what_gradscaler_sets_may_be_a_classs(kind):
    class Scaled(FusedDecaySGD):
        pass

    p = leaf(numbers(5))
    optimizer = Scaled([p], lr=0.1, backend=kind)
    for _ in range(4):
        p.grad = torch.ones(5)
        optimizer.step()
    before = p.detach().clone()
    Scaled.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert_same_bits(p, before)


def test_hooks_of_all_optimizers_may_be_replaced(kind, monkeypatch):
    _, optimizer = direct_one(kind)
    calls = []
    hooks = {0: lambda *_: calls.append(1)}
    module = importlib.import_module("torch.optim.optimizer")
    monkeypatch.setattr(module, "_global_optimizer_pre_hooks", hooks)
    optimizer.step()
    assert calls == [1]


@pytest.fixture
def pythons(monkeypatch):
    """Count the steps that are made in Python."""
    made = []

    def counted(step):
        return lambda *args: made.append(1) or step(*args)

    for backend in (Compiled, Cuda):
        monkeypatch.setattr(backend, "step", counted(backend.step))
    return made


@pytest.mark.parametrize("name", [n for n in OPTIONS if n != "every 3"])
def test_only_the_first_two_steps_are_pythons(name, pythons, kind):
    t = Twin(OPTIONS[name], True, kind)
    for _ in range(12):
        t.step()
        if t.by_hand():
            t.advance()
    direct = (kind, name) != ("cuda", "clipped")  # whose norm takes a launch of its own
    assert len(pythons) == (2 if direct else 12)
    assert (t.rates.direct is not None) == direct


def test_metrics_leave_steps_direct(pythons, kind):
    t = Twin(OPTIONS["plateau"], True, kind)
    for i in range(12):
        t.step()
        t.feed(torch.tensor(float(i)))  # a number would have to be uploaded
    assert len(pythons) == 2


def test_metrics_in_host_memory_are_fed_directly(monkeypatch):
    t = Twin(OPTIONS["plateau"], True)
    fed = []
    monkeypatch.setattr(type(t.rates), "observe", lambda *_: fed.append(1))
    for _ in range(3):
        t.step()
    assert t.rates.direct is not None
    one = torch.ones((), dtype=torch.float64)
    for metric in (1.0, torch.tensor(2.0), torch.tensor([[3.0]]), one, nn.Parameter(one)):
        t.feed(metric)
    assert not fed
    others = (
        np.float64(1.0),
        one.half(),
        torch.tensor(1),
        torch._neg_view(one),
        1,  # the last: an int may be an epoch, and the next metric is then looked at
    )
    for metric in others:
        assert t.rates.last_integer is None
        t.feed(metric)
    t.feed(np.float64(1.0))
    assert len(fed) == len(others) + 1
    with FlopCounterMode(display=False):
        t.feed(one)
    assert len(fed) == len(others) + 2


def test_a_read_of_the_rates_leaves_steps_direct(pythons, kind):
    t = Twin(OPTIONS["StepLR"], True, kind)
    for _ in range(12):
        t.step()
        assert t.optimizer.scheduler.get_last_lr() == [g["lr"] for g in t.optimizer.param_groups]
        assert t.optimizer.lr_used
    assert len(pythons) == 2


def test_where_a_parameter_was_odd_python_makes_the_next_steps(kind):
    p = leaf(numbers(4, seed=1))
    optimizer = FusedDecaySGD([p, leaf(numbers(4))], lr=0.1, schedule=StepLR(1), backend=kind)

    def give(grad):
        for q in optimizer.param_groups[0]["params"]:
            q.grad = grad

    for _ in range(3):
        give(numbers(4))
        optimizer.step()
    direct = optimizer._internals.rates.direct
    give(numbers(8)[::2])
    assert not direct.step(optimizer)
    give(numbers(4))
    assert [direct.step(optimizer) for _ in range(70)] == [False] * 63 + [True] * 7


@pytest.mark.parametrize("momentum", [0, 0.9])
def test_the_distributed_checkpoints_step_is_not_made_direct(momentum):
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    both = []
    for direct in (True, False):
        torch.manual_seed(3)
        model = nn.Linear(3, 2)
        optimizer = FusedDecaySGD(
            model.parameters(), lr=0.1, momentum=momentum, dampening=0.5, schedule=StepLR(1)
        )
        for _ in range(2):
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
        before = [p.clone() for p in model.parameters()]
        optimizer.zero_grad()
        optimizer.state.clear()
        get_optimizer_state_dict(model, optimizer)
        assert all(map(torch.equal, model.parameters(), before))
        assert optimizer.lr_used == [0.1 * 0.1]
        if not direct:
            optimizer._internals.rates.direct = None
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        both.append(list(model.parameters()))
    for ours, python in zip(*both, strict=True):
        assert_same_bits(ours, python)


def test_an_optimizer_that_is_no_more_frees_its_program(kind):
    t = Twin(OPTIONS["StepLR"], True, kind)
    t.step()
    t.step()
    t.step()
    assert t.rates.direct is not None
    seen = [weakref.ref(t.rates), weakref.ref(t.rates.program)]
    gc.collect()
    del t
    gc.collect()
    assert [ref() for ref in seen] == [None, None]
