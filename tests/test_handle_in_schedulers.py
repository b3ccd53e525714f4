"""The handle as a member of torch's compositions, and of other libraries' schedulers."""

import pytest
from support.handles import Pair, groups
from torch.optim import lr_scheduler

import lrfused
from lrfused import FusedDecaySGD


@pytest.mark.parametrize("kind", ["cosine", "exponential", "lambda", "cyclic", "onecycle"])
def test_the_protocol_of_ignite_works(kind):
    """It reads get_lr(), counts last_epoch, and writes the rates itself."""
    pair = Pair(kind)
    pair.step(2)
    for _ in range(6):
        for optimizer, scheduler in pair.runs:
            scheduler._get_lr_called_within_step = True
            values = scheduler.get_lr()
            scheduler._get_lr_called_within_step = False
            scheduler.last_epoch += 1
            for group, value in zip(optimizer.param_groups, values, strict=True):
                group["lr"] = value
        pair.compare()
        (_, scheduler), (_, handle) = pair.runs
        assert handle.last_epoch == scheduler.last_epoch


@pytest.mark.parametrize("kind", ["step", "cosine", "exponential", "restarts"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_handle_is_a_member_of_torchs_sequence(kind, place):
    pair = Pair(kind)
    outer = []
    for optimizer, scheduler in pair.runs:
        warm = lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 3)
        members = [scheduler, warm] if place == 0 else [warm, scheduler]
        outer.append(lr_scheduler.SequentialLR(optimizer, members, [4]))
    pair.runs = [(o, s) for (o, _), s in zip(pair.runs, outer, strict=True)]
    pair.step(12)


def test_a_handle_is_a_member_of_torchs_chain():
    pair = Pair("exponential")
    outer = []
    for optimizer, scheduler in pair.runs:
        other = lr_scheduler.ConstantLR(optimizer, 0.5, 3)
        outer.append(lr_scheduler.ChainedScheduler([other, scheduler], optimizer=optimizer))
    for _ in range(8):
        for (optimizer, _), scheduler in zip(pair.runs, outer, strict=True):
            optimizer.step()
            scheduler.step()
        pair.compare()


class GradualWarmup(lr_scheduler.LRScheduler):
    """Raise the rate, then hand over: as ildoonet/pytorch-gradual-warmup-lr does."""

    def __init__(self, optimizer, multiplier, total_epoch, after):
        self.multiplier, self.total_epoch, self.after = multiplier, total_epoch, after
        self.finished = False
        super().__init__(optimizer)

    def get_lr(self):
        if self.last_epoch > self.total_epoch:
            if not self.finished:
                self.after.base_lrs = [base * self.multiplier for base in self.base_lrs]
                self.finished = True
            return self.after.get_last_lr()
        grown = (self.multiplier - 1.0) * self.last_epoch / self.total_epoch + 1.0
        return [base * grown for base in self.base_lrs]

    def step(self, epoch=None):
        if self.finished:
            self.after.step(None if epoch is None else epoch - self.total_epoch)
            self._last_lr = self.after.get_last_lr()
        else:
            super().step(epoch)


@pytest.mark.parametrize("kind", ["cosine", "step"])
def test_a_handle_works_in_a_gradual_warmup(kind):
    pair = Pair(kind)
    outer = [GradualWarmup(o, 2.0, 3, s) for o, s in pair.runs]
    for _ in range(12):
        for (optimizer, _), scheduler in zip(pair.runs, outer, strict=True):
            optimizer.step()
            scheduler.step()
        assert outer[0].get_last_lr() == outer[1].get_last_lr()
        pair.compare()


def test_a_composition_is_refused_as_a_member_of_torchs_sequence():
    optimizer = FusedDecaySGD(
        groups(), lr=0.1, schedule=lrfused.warmup(lrfused.StepLR(1), 2), schedule_every=None
    )
    warm = lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 3)
    with pytest.raises(TypeError, match=r"compose them by lrfused.SequentialLR"):
        lr_scheduler.SequentialLR(optimizer, [warm, optimizer.scheduler], [3])
