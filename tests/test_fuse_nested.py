"""Recorded schedulers that keep their state in nested objects: they are put back."""

import itertools
import threading

from support.fused import Pair, optimizer_of
from torch.optim import lr_scheduler

from lrfused import fuse


class Inner:
    def __init__(self):
        self.n = 0


class Slotted:
    __slots__ = ("later", "n")

    def __init__(self):
        self.n = 0


class Derived(Slotted):
    """It has slots and a __dict__."""

    def __init__(self):
        super().__init__()
        self.seen = []


class Policy:
    def __init__(self):
        self.inner, self.slotted, self.derived = Inner(), Slotted(), Derived()
        self.lock, self.owner = threading.Lock(), self

    def advance(self):
        with self.lock:
            for one in (self.inner, self.slotted, self.derived):
                one.n += 1
            self.slotted.later = self.derived.fresh = self.inner.n
            self.derived.seen.append(self.inner.n)
        return self.inner.n


class Nested(lr_scheduler.LRScheduler):
    def __init__(self, optimizer):
        self.policy = Policy()
        super().__init__(optimizer)

    def get_lr(self):
        n = self.policy.advance()
        return [base / n for base in self.base_lrs]


def test_nested_objects_are_put_back():
    optimizer = optimizer_of()
    scheduler = Nested(optimizer)
    policy = scheduler.policy
    del policy.slotted.later, policy.derived.fresh
    fuse(optimizer, scheduler, total_steps=50)
    assert [one.n for one in (policy.inner, policy.slotted, policy.derived)] == [1, 1, 1]
    assert policy.derived.seen == [1]
    assert not hasattr(policy.slotted, "later")
    assert not hasattr(policy.derived, "fresh")
    Pair(Nested, total_steps=20).run(20)


def test_an_iterator_stays_where_the_recording_left_it():
    """No iterator can be set back; the documentation names this."""

    class Iterating(lr_scheduler.LRScheduler):
        def __init__(self, optimizer):
            self.numbers = itertools.count(1)
            super().__init__(optimizer)

        def get_lr(self):
            return [base / next(self.numbers) for base in self.base_lrs]

    optimizer = optimizer_of()
    scheduler = Iterating(optimizer)
    _, handle = fuse(optimizer, scheduler, total_steps=5)
    assert next(scheduler.numbers) == 7
    handle.optimizer.step()
    handle.step()
    assert handle.get_last_lr() == [0.05]
