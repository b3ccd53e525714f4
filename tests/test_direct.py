"""Steps in one call of the extension, made where nothing is unusual, and nowhere else.

Every change of CHANGES is made between two steps of two optimizers, of which one makes every step
in Python. Their groups, parameters, state and history must be the same after each step.
"""

import copy
import gc
import importlib
import inspect
import itertools
import random
import warnings
import weakref

import pytest
import torch
from support.bits import assert_same_bits
from support.inside import end_the_window
from support.tape import not_emulated
from support.twin import leaf, numbers
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from lrfused import (
    CosineAnnealingLR,
    FusedDecaySGD,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)
from lrfused.backends.compiled import Compiled
from lrfused.backends.cuda import Cuda

OPTIONS = {
    "no schedule": dict,
    "StepLR": lambda: {"schedule": StepLR(2, 0.5), "momentum": 0.9},
    "by hand": lambda: {
        "schedule": CosineAnnealingLR(9), "schedule_every": None, "weight_decay": 0.1,
    },
    "OneCycleLR": lambda: {"schedule": OneCycleLR(0.3, total_steps=40), "momentum": 0.9},
    "plateau": lambda: {
        "schedule": [CosineAnnealingLR(9), ReduceLROnPlateau(patience=0)],
        "momentum": 0.9, "nesterov": True,
    },
    "clipped": lambda: {"schedule": StepLR(2, 0.5), "momentum": 0.9, "max_grad_norm": 0.7},
    "every 3": lambda: {"schedule": StepLR(1, 0.5), "schedule_every": 3},
    "masters": lambda: {"schedule": StepLR(2, 0.5), "momentum": 0.9, "master_weights": True},
}  # fmt: skip


class Twin:
    """An optimizer with two groups, and its gradients, hooks and scheduler."""

    def __init__(self, options, direct, kind="compiled"):
        make = [numbers(5, seed=1), numbers(33, seed=2), numbers(3, 7, seed=3).bfloat16()]
        self.params = [leaf(t) for t in make]
        groups = [{"params": self.params[:2]}, {"params": self.params[2:], "lr": 0.03}]
        self.optimizer = FusedDecaySGD(groups, lr=0.1, backend=kind, **options())
        self.direct, self.seed, self.held, self.calls = direct, 5, [], 0

    @property
    def rates(self):
        return self.optimizer._internals.rates

    def give(self):
        self.seed += 10
        for i, p in enumerate(self.params):
            p.grad = numbers(*p.shape, seed=self.seed + i).to(p.dtype)

    def step(self, *args, give=True):
        if give:
            self.give()
        if not self.direct:
            self.rates.direct = None
        self.optimizer.step(*args)

    def by_hand(self):
        return self.optimizer._internals.clock.every is None and self.rates.bound

    def advance(self):
        if not self.direct:
            self.rates.direct = None
        self.optimizer.scheduler.step()

    def seen(self):
        optimizer = self.optimizer
        return {
            "groups": [
                {k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups
            ],
            "rates": [float(g["lr"]) for g in optimizer.param_groups],
            "used": optimizer.lr_used,
            "history": [str(column) for column in optimizer.lr_history()],
            "kept": self.rates.kept,
            "versions": [p._version for p in self.params],
            "last": optimizer.scheduler.get_last_lr() if self.rates.bound else None,
            "norm": str(optimizer.grad_norm.item()),
            "calls": self.calls,
        }

    def tensors(self):
        state = self.optimizer.state
        own = [t for p in self.params for t in state.get(p, {}).values() if t is not None]
        return [*self.params, *own]


def pass_a_closure_of_none(t):
    t.step(None)
    t.give()
    t.optimizer.step(closure=None)


def raise_in_the_middle(t):
    before = [dict(group) for group in t.optimizer.param_groups]
    if t.by_hand():
        t.advance()
    nesterov = t.optimizer.param_groups[0].pop("nesterov")
    with pytest.raises(KeyError):
        t.step()
    t.optimizer.param_groups[0]["nesterov"] = nesterov
    for group, old in zip(t.optimizer.param_groups, before, strict=True):
        group.update(old)  # as a wrapper does that keeps its own copies


def wrap_the_step(t):
    real = t.optimizer.step

    def step(*args):
        t.calls += 1
        return real(*args)

    t.optimizer.step = step


def set_rate(t):
    t.optimizer.param_groups[0]["lr"] = 0.07


def fill_a_tensor_rate(t):
    rate = t.optimizer.param_groups[0]["lr"] = torch.tensor(0.25, dtype=torch.float64)
    t.step()
    t.step()
    rate.fill_(0.5)


def set_settings(t):
    t.optimizer.param_groups[1].update(momentum=0.5, weight_decay=0.2, nesterov=False)


def maximize(t):
    t.optimizer.param_groups[0]["maximize"] = True


def add_a_group(t):
    if "max_lr" in t.optimizer.param_groups[0]:
        return  # OneCycleLR takes no other group
    t.params.append(leaf(numbers(8, seed=9)))
    t.optimizer.add_param_group({"params": [t.params[-1]], "lr": 0.5})


def append_a_group(t):
    if "max_lr" in t.optimizer.param_groups[0]:
        return
    t.params.append(leaf(numbers(8, seed=9)))
    t.optimizer.param_groups.append({**t.optimizer.param_groups[0], "params": [t.params[-1]]})


def remove_a_group(t):
    t.optimizer.param_groups.pop()


def copy_the_groups(t):
    t.optimizer.param_groups = [dict(group) for group in t.optimizer.param_groups]


def add_a_pre_hook(t):
    def hook(*_):
        t.calls += 1

    t.held.append(t.optimizer.register_step_pre_hook(hook))


def add_a_post_hook(t):
    def hook(*_):
        t.calls += 1

    t.held.append(t.optimizer.register_step_post_hook(hook))


def add_a_hook_of_all(t):
    def hook(optimizer, *_):
        t.calls += optimizer is t.optimizer

    t.held.append(register_optimizer_step_pre_hook(hook))


def call_a_closure(t):
    def closure():
        t.calls += 1
        t.give()

    t.step(closure)


def leave_a_gradient_out(t):
    t.give()
    t.params[0].grad = None
    t.step(give=False)


def give_a_strided_gradient(t):
    t.give()
    t.params[1].grad = numbers(66, seed=8)[::2]
    t.step(give=False)


def give_a_sparse_gradient(t):
    t.give()
    t.params[0].grad = numbers(5, seed=4).to_sparse()
    t.optimizer.max_grad_norm = None
    for group in t.optimizer.param_groups:
        group.update(weight_decay=0, momentum=0, nesterov=False)
    t.optimizer.state.clear()
    t.step(give=False)


def replace_a_parameter(t):
    t.params[0] = t.optimizer.param_groups[0]["params"][0] = leaf(numbers(5, seed=7))


def swap_the_data(t):
    t.params[1].data = numbers(33, seed=11)


def clear_the_state(t):
    t.optimizer.state.clear()


def drop_a_buffer(t):
    t.optimizer.state.pop(t.params[0], None)


def load_a_copy(t):
    t.optimizer.load_state_dict(copy.deepcopy(t.optimizer.state_dict()))


def clip(t):
    t.optimizer.max_grad_norm = 0.5


def find_an_infinity(t):
    t.optimizer.found_inf = torch.tensor(1.0)
    t.step()
    del t.optimizer.found_inf


def scale(t):
    t.optimizer.grad_scale = torch.tensor(4.0)
    t.step()
    del t.optimizer.grad_scale


def attach_a_scheduler(t):
    t.held.append(lr_scheduler.LambdaLR(t.optimizer, lambda e: 0.5**e))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        t.step()
        t.step()
    t.calls += len(caught)
    t.held[-1].step()


def write_the_schedule(t):
    t.optimizer.param_groups[0]["schedule"] = LambdaLR(lambda e: 0.9**e)


def write_an_attribute(t):
    if t.rates.bound:
        name = {StepLR: "gamma", CosineAnnealingLR: "T_max", OneCycleLR: "total_steps"}
        setattr(t.optimizer.scheduler, name[type(t.rates.bound[0].schedules[0])], 30)


def change_a_list_of_a_scheduler(t):
    if len(t.rates.bound) == 1:
        t.optimizer.scheduler.base_lrs[0] = 0.4


def write_max_lr(t):
    if "max_lr" in t.optimizer.param_groups[0]:
        t.optimizer.param_groups[0]["max_lr"] = 0.6


def feed_a_metric(t):
    if t.rates.fed:
        for loss in (1.0, 2.0, 3.0):
            t.optimizer.scheduler.step(loss)
            t.step()


def step_the_handle_twice(t):
    if t.by_hand():
        t.advance()
        t.advance()


def read_the_handle(t):
    if t.rates.bound:
        t.optimizer.scheduler.state_dict()


def switch_momentum_on(t):
    for group in t.optimizer.param_groups:
        group["momentum"] = 0.8


def go_past_the_window(t):
    end_the_window(t.optimizer)


def copy_the_optimizer(t):
    t.optimizer = copy.deepcopy(t.optimizer)
    t.params = [p for g in t.optimizer.param_groups for p in g["params"]]


CHANGES = {
    name.replace("_", " "): f
    for name, f in list(globals().items())
    if inspect.isfunction(f) and list(inspect.signature(f).parameters) == ["t"]
}


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
        t.optimizer.scheduler.step(torch.tensor(float(i)))  # a number would have to be uploaded
    assert len(pythons) == 2


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
