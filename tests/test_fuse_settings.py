"""Settings that torch takes and later reads in ways of its own."""

import math

import pytest
from support.fused import Pair, optimizer_of
from torch.optim import lr_scheduler

from lrfused import fuse

EDITS = {
    "gamma": lambda s: setattr(s, "gamma", 0.5),
    "mode": lambda s: setattr(s, "mode", "triangular"),
    "scale_mode": lambda s: setattr(s, "scale_mode", "cycle"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("mode", ["exp_range", "triangular2"])
def test_a_cyclic_lr_binds_its_function_when_it_is_made(mode, edit):
    def make(o):
        return lr_scheduler.CyclicLR(o, 0.01, 0.1, 4, mode=mode, gamma=0.9, cycle_momentum=False)

    Pair(make, edit).run(20)


@pytest.mark.parametrize("size", [-1, -3, -2.5, -0.5, 0.5, 0, 0.0, -math.inf, -(10**12)])
@pytest.mark.parametrize("start", [None, 0, 0.5, -2])
@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_a_step_size_below_one_counts_as_torchs(size, start, backend):
    def change(s):
        s.step_size = size
        if start is not None:
            s.last_epoch = start

    steps = Pair(lambda o: lr_scheduler.StepLR(o, 3, 0.5), change, backend=backend).run(8)
    assert steps == 8 or size == 0


def recorded(total_steps, rate=0.9):
    class Unknown(lr_scheduler.LRScheduler):
        def get_lr(self):
            return [base * rate**self.last_epoch for base in self.base_lrs]

    optimizer = optimizer_of()
    return fuse(optimizer, Unknown(optimizer), total_steps=total_steps)


def test_a_checkpoint_of_a_longer_recording_is_refused_in_few_words():
    with pytest.raises(ValueError, match=r"total_steps=50, this optimizer's 40;") as raised:
        recorded(40)[0].load_state_dict(recorded(50)[0].state_dict())
    assert len(str(raised.value)) < 200


def test_so_is_one_of_another_tape():
    shape = r"lrs=\[0.1, 0.08, 0.064, ...\] of shape \(41, 1\), this optimizer's \[0.1, 0.09, "
    with pytest.raises(ValueError, match=shape) as raised:
        recorded(40)[0].load_state_dict(recorded(40, 0.8)[0].state_dict())
    assert len(str(raised.value)) < 250
