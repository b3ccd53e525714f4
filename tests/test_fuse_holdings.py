"""Schedulers of unknown classes that hold things: they are recorded without copying these."""

import copy
import random
import threading
import warnings
from collections import Counter, OrderedDict, deque
from functools import partial

import numpy as np
import pytest
import torch
from support.fused import Pair, optimizer_of
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from lrfused import fuse


class Decaying(lr_scheduler.LRScheduler):
    """A scheduler of the user's own, with something it was given."""

    def __init__(self, optimizer, held=None):
        self.held = held
        super().__init__(optimizer)

    def get_lr(self):
        return [base / (1 + self.last_epoch) for base in self.base_lrs]


class NoCopy:
    def __deepcopy__(self, memo):
        raise RuntimeError("no copy")

    __copy__ = __deepcopy__


class NoReduce:
    def __reduce_ex__(self, protocol):
        raise RuntimeError("no pickle")


class Slotted:
    __slots__ = ("empty",)


def generator():
    yield from range(100)


def closed_file():
    with open(__file__) as file:
        return file


HELD = {
    "lock": threading.Lock,
    "thread": lambda: threading.Thread(target=print),
    "event": threading.Event,
    "file": closed_file,
    "generator": generator,
    "no-copy": NoCopy,
    "no-reduce": NoReduce,
    "slots": Slotted,
    "module": lambda: torch.nn.BatchNorm1d(3),
    "loader": lambda: DataLoader(TensorDataset(torch.zeros(3))),
    "optimizer": lambda: torch.optim.Adam([torch.zeros(1, requires_grad=True)]),
    "cycle": lambda: (lambda own: own.append(own) or own)([]),
    "class": lambda: Decaying,
    "Python-module": lambda: warnings,
    "numpy-generator": lambda: np.random.default_rng(0),
}


@pytest.mark.parametrize("make", HELD.values(), ids=HELD)
def test_a_scheduler_may_hold_anything(make):
    held = make()
    pair = Pair(lambda o: Decaying(o, held), total_steps=10)
    pair.run(10)


@pytest.mark.parametrize("make", HELD.values(), ids=HELD)
def test_so_may_one_of_torchs(make):
    """Keep all but plain data out of the handle and of checkpoints."""

    def hold(s):
        s.held, s.mark = make(), {"mine": [1, 2.5]}

    pair = Pair(lambda o: lr_scheduler.ExponentialLR(o, 0.9), hold)
    pair.run(5)
    assert pair.handle.mark == {"mine": [1, 2.5]}
    copy.deepcopy(pair.ours.state_dict())
    copy.deepcopy(pair.ours)


class Warmup:
    """A callable with a state and a lock."""

    def __init__(self):
        self.lock = threading.Lock()
        self.calls = 0

    def __call__(self, epoch):
        with self.lock:
            self.calls += 1
        return min(1.0, 0.1 * (epoch + 1))


class SlottedWarmup:
    __slots__ = ()

    def __call__(self, epoch):
        return min(1.0, 0.1 * (epoch + 1))


@pytest.mark.parametrize("make", [Warmup, SlottedWarmup, lambda: partial(pow, 0.9)])
@pytest.mark.parametrize("kind", [lr_scheduler.LambdaLR, lr_scheduler.MultiplicativeLR])
def test_a_function_may_be_any_callable(kind, make):
    pair = Pair(lambda o: kind(o, make()))
    pair.run(15)
    copy.deepcopy(pair.ours.state_dict())


class Asking(lr_scheduler.LRScheduler):
    """A scheduler whose closure looks at the optimizer."""

    def __init__(self, optimizer):
        self.factor = lambda: 0.5 if optimizer.param_groups[0]["lr"] > 0.02 else 0.9
        super().__init__(optimizer)

    def get_lr(self):
        return [g["lr"] * (1 if self._is_initial else self.factor()) for g in
                self.optimizer.param_groups]  # fmt: skip


def test_a_closure_over_the_optimizer_sees_the_rates_that_are_recorded():
    Pair(Asking, total_steps=12).run(12)


class Restless(lr_scheduler.LRScheduler):
    """A scheduler that changes all that it holds in each step."""

    def __init__(self, optimizer):
        calls = 0

        def count():
            nonlocal calls
            calls += 1
            return calls

        self.count = count
        self.helper = Warmup.__new__(Warmup)
        vars(self.helper).update(calls=0, seen=[[]])
        self.seen = {"list": [], "dict": OrderedDict(), "set": set(), "deque": deque(maxlen=3)}
        self.numbers = np.zeros(3)
        self.tensor = torch.zeros(3)
        self.counter = Counter()
        self.random = random.Random(0)
        self.generator = torch.Generator()
        self.numpys = np.random.default_rng(0)
        self.inner = lr_scheduler.StepLR(optimizer, 2)
        super().__init__(optimizer)

    def get_lr(self):
        t = self.last_epoch
        self.helper.calls += 1
        self.helper.seen[0].append(t)
        self.seen["list"].append(t)
        self.seen["dict"][t] = [t]
        self.seen["set"].add(t)
        self.seen["deque"].append(t)
        self.numbers += 1
        self.tensor += 1
        self.counter[t % 2] += 1
        self.inner.step()
        noise = self.random.random() + self.numpys.random()
        noise += torch.rand(1, generator=self.generator).item() + self.count()
        self.optimizer.param_groups[0]["noise"] = [noise]
        return [0.1 * noise for _ in self.base_lrs]

    def contents(self):
        return copy.deepcopy(
            (self.seen, self.numbers.tolist(), self.tensor.tolist(), self.counter,
             self.random.getstate(), self.generator.get_state().tolist(),
             self.numpys.bit_generator.state, vars(self.helper), self.inner.state_dict(),
             self.last_epoch, self._step_count, self.optimizer.param_groups[0]["noise"],
             self.optimizer.param_groups[0]["lr"])
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore:Detected call of")  # of the inner one, in the constructor
def test_a_recorded_scheduler_is_put_back():
    optimizer = optimizer_of()
    scheduler = Restless(optimizer)
    before = scheduler.contents()
    fuse(optimizer, scheduler, total_steps=20)
    assert scheduler.contents() == before
    optimizer.step()
    scheduler.step()
    pair = Pair(Restless, total_steps=20)
    pair.run(20)


class Drawing(Decaying):
    def get_lr(self):
        noise = random.random() + np.random.rand() + torch.rand(()).item()  # noqa: NPY002
        return [noise for _ in self.base_lrs]


def test_the_generators_of_the_process_are_put_back():
    optimizer = optimizer_of()
    scheduler = Drawing(optimizer)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    first = random.random() + np.random.rand() + torch.rand(()).item()  # noqa: NPY002
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    fuse(optimizer, scheduler, total_steps=5)
    assert random.random() + np.random.rand() + torch.rand(()).item() == first  # noqa: NPY002


def test_a_tensor_rate_is_put_back():
    rate = torch.tensor(0.1)
    optimizer = optimizer_of(rate)
    scheduler = Decaying(optimizer)
    fused, handle = fuse(optimizer, scheduler, total_steps=5)
    assert rate.item() == torch.tensor(0.1).item()
    assert optimizer.param_groups[0]["lr"] is rate
    fused.step()
    handle.step()
    assert rate.item() == torch.tensor(0.05).item()


class Counting(Decaying):
    """A scheduler that counts in a tensor."""

    def __init__(self, optimizer):
        self.count = torch.zeros(())
        super().__init__(optimizer)

    def get_lr(self):
        self.count += 1
        return [0.1 / self.count.item() for _ in self.base_lrs]


def test_a_scheduler_of_inference_mode_is_recorded_in_it():
    with torch.inference_mode():
        optimizer = optimizer_of()
        scheduler = Counting(optimizer)
        fused, handle = fuse(optimizer, scheduler, total_steps=3)
        assert scheduler.count == 1
    fused.step()
    handle.step()
    assert fused.param_groups[0]["lr"] == 0.05


class Writing(Decaying):
    """A scheduler that keeps its own entries in the groups."""

    def get_lr(self):
        for group in self.optimizer.param_groups:
            group["stage"] = group.get("stage", 0) + 1
        return [base / group["stage"] for base, group in zip(self.base_lrs,
                self.optimizer.param_groups, strict=True)]  # fmt: skip


def test_entries_that_a_scheduler_writes_into_the_groups_are_warned_of():
    theirs, ours = optimizer_of(), optimizer_of()
    expected, scheduler = Writing(theirs), Writing(ours)
    with pytest.warns(UserWarning, match="Writing writes 'stage' into param_groups") as given:
        ours, handle = fuse(ours, scheduler, total_steps=6)
    assert given[0].filename == __file__
    for _ in range(6):
        theirs.step()
        expected.step()
        ours.step()
        handle.step()
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    assert ours.param_groups[0]["stage"] == 1
