"""Schedulers that fail: while they are recorded, and at the epoch at which torch's would."""

import math

import pytest
from support.fused import Pair, optimizer_of
from torch.optim import lr_scheduler

from lrfused import (
    ChainedScheduler,
    CyclicLR,
    ExponentialLR,
    FusedDecaySGD,
    LambdaLR,
    MultiplicativeLR,
    OneCycleLR,
    SequentialLR,
    fuse,
)


class Failing(lr_scheduler.LRScheduler):
    def get_lr(self):
        if self.last_epoch == 3:
            raise KeyError("no such stage")
        return [base / (1 + self.last_epoch) for base in self.base_lrs]


def test_a_scheduler_that_fails_while_it_is_recorded_is_named():
    optimizer = optimizer_of()
    scheduler = Failing(optimizer)
    with pytest.raises(ValueError, match=r"Failing fails at step 3 .*KeyError: 'no such") as raised:
        fuse(optimizer, scheduler, total_steps=5)
    assert isinstance(raised.value.__cause__, KeyError)
    assert (scheduler.last_epoch, optimizer.param_groups[0]["lr"]) == (0, 0.1)  # put back
    Pair(Failing, total_steps=1).run(1)


def test_a_rate_that_is_no_number_is_named():
    class Wordy(Failing):
        def get_lr(self):
            return ["fast" if self.last_epoch == 2 else 0.1]

    optimizer = optimizer_of()
    with pytest.raises(ValueError, match=r"Wordy fails at step 2 .*lr must be one real number"):
        fuse(optimizer, Wordy(optimizer), total_steps=5)


def test_the_member_that_is_unknown_is_named():
    optimizer = optimizer_of()
    members = [lr_scheduler.ExponentialLR(optimizer, 0.9), Failing(optimizer)]
    with pytest.raises(TypeError, match="does not know Failing: pass fuse"):
        fuse(optimizer, lr_scheduler.SequentialLR(optimizer, members, [2]))


def failing_at(t):
    def function(epoch):
        if epoch == t:
            raise ArithmeticError(f"epoch {epoch}")
        return 0.9 + 1e-3 * math.sin(epoch)

    return function


# Each fails in its step 7, which lies inside of a table.
AT_SEVEN = {
    "LambdaLR": (
        lambda o: lr_scheduler.LambdaLR(o, failing_at(7)),
        lambda: LambdaLR(failing_at(7)),
    ),
    "MultiplicativeLR": (
        lambda o: lr_scheduler.MultiplicativeLR(o, failing_at(7)),
        lambda: MultiplicativeLR(failing_at(7)),
    ),
    "CyclicLR": (
        lambda o: lr_scheduler.CyclicLR(
            o, 0.1, 0.2, 5, scale_fn=failing_at(7), scale_mode="iterations"
        ),
        lambda: CyclicLR(0.1, 0.2, 5, scale_fn=failing_at(7), scale_mode="iterations"),
    ),
    "OneCycleLR": (
        lambda o: lr_scheduler.OneCycleLR(o, 0.5, total_steps=6),
        lambda: OneCycleLR(0.5, total_steps=6),
    ),
    "chained": (
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.ExponentialLR(o, 0.9), lr_scheduler.MultiplicativeLR(o, failing_at(7))]
        ),
        lambda: ChainedScheduler([ExponentialLR(0.9), MultiplicativeLR(failing_at(7))]),
    ),
    "sequential": (
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ExponentialLR(o, 0.9), lr_scheduler.LambdaLR(o, failing_at(4))], [3]
        ),
        lambda: SequentialLR([ExponentialLR(0.9), LambdaLR(failing_at(4))], [3]),
    ),
}


@pytest.mark.parametrize("name", AT_SEVEN)
def test_an_error_comes_at_its_epoch_after_fusing(name):
    assert Pair(AT_SEVEN[name][0]).run(30) == 6  # one step was made before


@pytest.mark.parametrize("name", AT_SEVEN)
def test_an_error_comes_at_its_epoch_in_a_schedule(name, backend):
    optimizer = optimizer_of()
    optimizer = FusedDecaySGD(
        optimizer.param_groups[0]["params"], 0.1, 0.9, schedule=AT_SEVEN[name][1](), backend=backend
    )
    for _ in range(6):
        optimizer.step()
    rate = optimizer.param_groups[0]["lr"]
    for _ in range(2):  # a refused step has changed nothing
        with pytest.raises((ArithmeticError, ValueError), match=r"epoch|Tried to step"):
            optimizer.step()
        assert optimizer.param_groups[0]["lr"] == rate
        assert optimizer.scheduler.last_epoch == 6


UNTABLED = {
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.0, 5),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 5, -1.0),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, *[5] * 40], 1e30),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.5, 0.0, 4),
}


@pytest.mark.parametrize("make", UNTABLED.values(), ids=UNTABLED)
def test_so_does_the_error_of_a_formula(make):
    """Divisions by zero and overflows, at the end of a schedule."""
    assert Pair(make).run(8) >= 4
