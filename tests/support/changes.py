"""Optimizers in pairs, of which one makes every step in Python, and what may happen to them."""

import copy
import inspect
import math
import warnings

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lrfused import (
    CosineAnnealingLR,
    FusedDecaySGD,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from .inside import end_the_window
from .twin import leaf, numbers

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
    "plateaus": lambda: {
        "schedule": [
            StepLR(2, 0.9), ReduceLROnPlateau(patience=0), ReduceLROnPlateau("max", patience=1),
        ],
        "schedule_every": None,
    },
    "plateau of a group": lambda: {"schedule": None, "momentum": 0.9},
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
        options = options()
        if "schedule" in options and options["schedule"] is None:
            groups[1]["schedule"] = ReduceLROnPlateau(patience=0)
        self.optimizer = FusedDecaySGD(groups, lr=0.1, backend=kind, **options)
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

    def feed(self, metric):
        if not self.direct:
            self.rates.direct = None
        self.optimizer.scheduler.step(metric)

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
        name = {
            StepLR: "gamma", CosineAnnealingLR: "T_max", OneCycleLR: "total_steps",
            ReduceLROnPlateau: "patience",
        }  # fmt: skip
        setattr(t.optimizer.scheduler, name[type(t.rates.bound[0].schedules[0])], 30)


def change_a_list_of_a_scheduler(t):
    if len(t.rates.bound) == 1 and t.rates.stepped:
        t.optimizer.scheduler.base_lrs[0] = 0.4


def write_max_lr(t):
    if "max_lr" in t.optimizer.param_groups[0]:
        t.optimizer.param_groups[0]["max_lr"] = 0.6


def feed_metrics(t):
    if t.rates.fed:
        for loss in (1.0, 2.0, 3, True, 4, math.nan, np.float32(5), torch.tensor(6.0), -math.inf):
            t.feed(loss)
            t.step()


def feed_two_metrics_at_once(t):
    if t.rates.fed:
        t.held.append(t.optimizer.param_groups[1]["schedule"])
        before = copy.deepcopy(t.held[-1])
        t.feed(7.0)
        t.feed(8.0)
        assert t.held[-1] == before


def write_a_rate_before_a_metric(t):
    if t.rates.fed:
        t.optimizer.param_groups[1]["lr"] = 0.5
        t.feed(1e9)


def write_patience_before_metrics(t):
    if t.rates.fed and len(t.rates.bound[0].plateaus) == 1:
        t.optimizer.scheduler.patience = 1
        for metric in range(2, 9):
            t.feed(float(metric))
            t.step()


def hold_a_place(t):
    place = t.optimizer.param_groups[0]["schedule"]
    before = copy.deepcopy(place)
    t.step()
    if t.by_hand():
        t.advance()
    assert place == before


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
