"""Step hooks and the profiler's range: skipped when none is active, present when one is."""

import torch
from support.twin import leaf
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.profiler import ProfilerActivity, profile

from lrfused import _C, FusedDecaySGD, StepLR


def one(cls=FusedDecaySGD, **options):
    p = leaf(torch.ones(3))
    p.grad = torch.ones(3)
    return cls([p], lr=0.5, **options)


def test_a_profiler_sees_the_step_under_torchs_name():
    optimizer = one()
    optimizer.step()
    assert not _C.has_observers()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as seen:
        assert _C.has_observers()
        optimizer.step()
        optimizer.step()
    names = [event.name for event in seen.events()]
    assert names.count("Optimizer.step#FusedDecaySGD.step") == 2


def test_hooks_run_once_a_step_and_may_change_its_arguments():
    optimizer, called = one(), []
    optimizer.step()
    pre = optimizer.register_step_pre_hook(lambda _, args, kwargs: (args, {"closure": lambda: 7}))
    post = optimizer.register_step_post_hook(lambda *_: called.append("own"))
    everywhere = register_optimizer_step_post_hook(lambda *_: called.append("every"))
    assert optimizer.step() == 7
    assert called == ["own", "every"]
    for hook in (pre, post, everywhere):
        hook.remove()
    assert optimizer.step() is None
    assert called == ["own", "every"]


def test_hooks_run_once_where_a_subclass_has_no_step_of_its_own():
    class Named(FusedDecaySGD):
        pass

    optimizer, called = one(Named), []
    optimizer.register_step_post_hook(lambda *_: called.append(1))
    optimizer.step()
    assert called == [1]
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as seen:
        optimizer.step()
    assert "Optimizer.step#Named.step" in [event.name for event in seen.events()]


def test_a_subclass_may_have_a_step_of_its_own():
    class Counting(FusedDecaySGD):
        count = 0

        def step(self, closure=None):
            self.count += 1
            return super().step(closure)

    optimizer = one(Counting, schedule=StepLR(1))
    optimizer.step()
    optimizer.step()
    assert optimizer.count == 2
    assert optimizer.param_groups[0]["lr"] == 0.5 * 0.1 * 0.1
