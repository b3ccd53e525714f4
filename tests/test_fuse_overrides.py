"""Methods that replace torch's: in a subclass of SGD, or on one optimizer or scheduler."""

import functools
import subprocess
import sys
from types import MethodType

import pytest
import torch
from support.fused import Pair, optimizer_of
from torch.optim import SGD, lr_scheduler

from lrfused import fuse

FIRST_SUBCLASS = """
import torch, lrfused
from torch.optim import SGD
class Mine(SGD):
    pass
lrfused.fuse(Mine([torch.zeros(1)], lr=1.0))
class Other(SGD):
    @torch.no_grad()
    def step(self, closure=None):
        return None
try:
    lrfused.fuse(Other([torch.zeros(1)], lr=1.0))
except TypeError as error:
    assert "got Other" in str(error), error
else:
    raise AssertionError("taken")
"""


def test_a_subclass_may_come_before_any_sgd():
    """Torch's constructor wraps the step of each class once, so this needs a fresh process."""
    subprocess.run([sys.executable, "-c", FIRST_SUBCLASS], check=True, timeout=120)


class Skipping(SGD):
    def _init_group(self, *args):
        return False


class Reading(SGD):
    @property
    def state(self):
        return {}

    @state.setter
    def state(self, value):
        pass


@pytest.mark.parametrize(("cls", "name"), [(Skipping, "_init_group"), (Reading, "state")])
def test_a_subclass_that_replaces_a_part_of_the_step_is_refused(cls, name):
    with pytest.raises(TypeError, match=f"this {cls.__name__} replaces SGD's {name}, which"):
        fuse(cls([torch.zeros(1)], lr=1.0))


@pytest.mark.parametrize("attach", [False, True])
@pytest.mark.parametrize("copies_marks", [False, True])
def test_a_step_assigned_to_the_optimizer_is_refused(attach, copies_marks):
    optimizer = optimizer_of()
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.9) if attach else None
    step = optimizer.step

    def own(closure=None):
        return step(closure)

    optimizer.step = functools.wraps(step)(own) if copies_marks else own
    with pytest.raises(TypeError, match="this SGD replaces SGD's step, which"):
        fuse(optimizer, scheduler)


def test_torchs_own_wrappers_are_taken():
    optimizer = optimizer_of()
    first = lr_scheduler.ExponentialLR(optimizer, 0.9)
    fuse(optimizer, [first, lr_scheduler.StepLR(optimizer, 2)])


def seven(self):
    return [0.7 / (1 + self.last_epoch) for _ in self.base_lrs]


def set_rates(self, epoch=None):
    self.last_epoch += 1
    for group in self.optimizer.param_groups:
        group["lr"] = 1 / (1 + self.last_epoch)


@pytest.mark.parametrize(("name", "method"), [("get_lr", seven), ("step", set_rates)])
def test_a_method_assigned_to_a_scheduler_is_recorded(name, method):
    def replace(s):
        setattr(s, name, MethodType(method, s))

    with pytest.raises(TypeError, match=f"does not know StepLR with its own {name}: pass fuse"):
        Pair(lambda o: lr_scheduler.StepLR(o, 2), replace)
    Pair(lambda o: lr_scheduler.StepLR(o, 2), replace, total_steps=9).run(9)


def test_so_is_one_of_a_member():
    def make(o):
        members = [lr_scheduler.ExponentialLR(o, 0.9), lr_scheduler.StepLR(o, 2)]
        members[1].get_lr = MethodType(seven, members[1])
        return lr_scheduler.ChainedScheduler(members)

    with pytest.raises(TypeError, match="does not know StepLR with its own get_lr"):
        Pair(make)
    Pair(make, total_steps=9).run(9)


def test_a_plateau_with_a_step_of_its_own_is_refused():
    optimizer = optimizer_of()
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer)
    scheduler.step = lambda metric: None
    with pytest.raises(TypeError, match="in a way of its own"):
        fuse(optimizer, scheduler)


def test_defaults_of_the_users_own_are_left_out():
    optimizer = optimizer_of()
    optimizer.defaults["extra"] = 3
    fused, _ = fuse(optimizer)
    assert fused.defaults["momentum"] == 0.9
