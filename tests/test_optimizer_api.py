"""FusedDecaySGD as an optimizer: everything a caller of torch.optim.SGD may rely on."""

import inspect
import weakref

import pytest
import torch
from cases import HYPER
from support.bits import assert_same_bits, assert_same_rates
from support.one import give, one
from support.twin import Twin, assert_same_state, leaf, numbers, rates, sgd
from torch.optim import lr_scheduler

from lrfused import ExponentialLR, FusedDecaySGD, OneCycleLR, ReduceLROnPlateau, StepLR
from lrfused.reference import ReferenceDecaySGD

pytestmark = pytest.mark.backends(
    "host",
    reason="the interface is the same on every backend, and test_update.py compares their bits",
)

SIGNATURE = (
    "(params, lr=0.001, momentum=0, dampening=0, weight_decay=0, nesterov=False, *, "
    "maximize=False, schedule=None, schedule_every=1, amp=None, advance='always', "
    "max_grad_norm=None, master_weights=False, backend='auto', capturable=False, "
    "foreach=None, fused=None, differentiable=False)"
)


@pytest.mark.parametrize("kind", [FusedDecaySGD, ReferenceDecaySGD])
def test_the_signature(kind):
    parameters = inspect.signature(kind).parameters.values()
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    assert str(inspect.Signature(bare)) == SIGNATURE


@pytest.mark.parametrize("kind", [FusedDecaySGD, ReferenceDecaySGD])
def test_it_is_a_torch_optimizer(kind):
    optimizer = kind([leaf(numbers(3))])
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert rates(optimizer) == [1e-3]


def test_the_handle_is_a_scheduler(backend):
    optimizer = one(backend, schedule=ExponentialLR(0.5))
    handle = optimizer.scheduler
    assert isinstance(handle, lr_scheduler.LRScheduler)
    assert not hasattr(optimizer.step, "_wrapped_by_lr_sched")
    assert optimizer.scheduler is handle
    assert handle.last_epoch == 0
    assert handle.get_last_lr() == [0.1]
    optimizer.step()
    assert handle.last_epoch == 1
    assert handle.get_last_lr() == [0.05]
    handle.get_last_lr()[0] = 7.0
    assert handle.get_last_lr() == rates(optimizer) == [0.05]
    assert type(handle.get_last_lr()[0]) is float


def test_the_handle_does_not_advance_what_the_step_advances(backend):
    optimizer = one(backend, schedule=ExponentialLR(0.5))
    with pytest.raises(RuntimeError, match="schedule_every"):
        optimizer.scheduler.step()
    assert rates(optimizer) == [0.1]
    assert optimizer.scheduler.last_epoch == 0


def test_a_schedule_ticks_without_any_gradient(backend):
    optimizer = one(backend, schedule=ExponentialLR(0.5))
    for step in range(5):
        assert rates(optimizer) == [0.1 * 0.5**step]
        optimizer.step()
    assert_same_bits(optimizer.param_groups[0]["params"][0], numbers(9))


def test_the_rate_used_is_the_one_shown_before_the_step(backend):
    optimizer = one(backend, schedule=ExponentialLR(0.5))
    param = optimizer.param_groups[0]["params"][0]
    for _ in range(3):
        give(optimizer)
        want = param.detach().add(param.grad, alpha=-rates(optimizer)[0])
        assert optimizer.state_dict()["param_groups"][0]["lr"] == rates(optimizer)[0]
        optimizer.step()
        assert_same_bits(param, want)


DTYPES_OF_RATES = [
    *(torch.float64, torch.float32, torch.bfloat16, torch.float16),
    *(torch.int64, torch.int32, torch.uint8),
]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES_OF_RATES, ids=str)
def test_a_rate_given_as_tensor(backend, dtype, shape):
    given = torch.full(shape, 0.1 if dtype.is_floating_point else 1, dtype=dtype)
    ours = one(backend, lr=given, schedule=ExponentialLR(0.9))
    assert rates(ours)[0] is given
    theirs = sgd([leaf(numbers(9))], lr=given.item())
    scheduler = lr_scheduler.ExponentialLR(theirs, 0.9)
    for step in range(5):
        for optimizer in (ours, theirs):
            give(optimizer, seed=step)
            optimizer.step()
        scheduler.step()
        assert_same_rates(ours.scheduler.get_last_lr(), rates(theirs))
        assert_same_bits(ours.param_groups[0]["params"][0], theirs.param_groups[0]["params"][0])
        assert torch.equal(given, torch.full_like(given, rates(theirs)[0]))


def test_a_rate_assigned_as_tensor(backend):
    twin = Twin([numbers(33)], backend, HYPER["momentum"])
    for value in (torch.tensor(0.3), torch.tensor([0.07]), torch.tensor(0.2, dtype=torch.float64)):
        twin.opt.param_groups[0]["lr"] = value
        twin.oracle.param_groups[0]["lr"] = value.item()
        twin.give(twin.draw())
        twin.opt.step()
        twin.oracle.step()
        for mine, other in zip(twin.mine, twin.other, strict=True):
            assert_same_bits(mine, other)
        assert rates(twin.opt)[0] is value


@pytest.mark.parametrize("foreach", [None, True, False])
@pytest.mark.parametrize("fused", [None, True, False])
def test_foreach_and_fused_are_accepted_and_ignored(backend, foreach, fused):
    opt = one(backend, foreach=foreach, fused=fused, momentum=0.9)
    theirs = sgd([leaf(numbers(9))], lr=0.1, momentum=0.9)
    for optimizer in (opt, theirs):
        give(optimizer)
        optimizer.step()
        optimizer.step()
    assert_same_state(opt, theirs)
    assert opt.state_dict()["param_groups"][0]["foreach"] is None
    assert opt.state_dict()["param_groups"][0]["fused"] is None


def test_a_closure_is_called_once_with_gradients_enabled(backend):
    optimizer = one(backend)
    param, calls = optimizer.param_groups[0]["params"][0], []
    before = param.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = (param**2).sum()
        loss.backward()
        calls.append(torch.is_grad_enabled())
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert calls == [True]
    assert_same_bits(loss, (before**2).sum())
    assert_same_bits(param, before.add(2 * before, alpha=-0.1))
    assert optimizer.step() is None


def test_hooks_are_called_as_torch_calls_them(backend):
    optimizer, calls = one(backend, schedule=StepLR(1)), []
    handles = [
        optimizer.register_step_pre_hook(lambda *a: calls.append(("pre", rates(a[0])))),
        optimizer.register_step_post_hook(lambda *a: calls.append(("post", rates(a[0])))),
        optimizer.register_state_dict_post_hook(lambda o, s: calls.append(("state", len(s)))),
        optimizer.register_load_state_dict_post_hook(lambda o: calls.append(("load", o))),
    ]
    optimizer.step()
    assert calls == [("pre", [0.1]), ("post", [0.1 * 0.1])]
    optimizer.load_state_dict(optimizer.state_dict())
    assert calls[2:] == [("state", 2), ("load", optimizer)]
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert len(calls) == 4


def test_hooks_of_loading_may_replace_the_state(backend):
    optimizer, donor = one(backend), one(backend, lr=0.7)

    def replace(_, state):
        return donor.state_dict()

    optimizer.register_load_state_dict_pre_hook(replace)
    optimizer.load_state_dict(optimizer.state_dict())
    assert rates(optimizer) == [0.7]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(backend, set_to_none):
    optimizer = one(backend)
    give(optimizer)
    optimizer.zero_grad(set_to_none=set_to_none)
    grad = optimizer.param_groups[0]["params"][0].grad
    if set_to_none:
        assert grad is None
    else:
        assert_same_bits(grad, torch.zeros(9))


def test_the_repr_shows_the_groups(backend):
    text = repr(one(backend, momentum=0.9, schedule=StepLR(30)))
    assert text.startswith("FusedDecaySGD (\nParameter Group 0\n")
    assert "    lr: 0.1\n" in text
    assert "    momentum: 0.9\n" in text
    assert "StepLR(step_size=30" in text


def test_the_optimizer_and_its_handle_are_freed_together(backend):
    optimizer = one(backend, schedule=StepLR(30), momentum=0.9)
    give(optimizer)
    optimizer.step()
    gone = weakref.ref(optimizer.param_groups[0]["params"][0])
    handle = optimizer.scheduler
    assert handle.get_last_lr() == [0.1]
    del optimizer, handle
    import gc

    gc.collect()
    assert gone() is None


def test_a_handle_outlives_the_name_of_its_optimizer(backend):
    handle = one(backend, schedule=ExponentialLR(0.5), schedule_every=None).scheduler
    handle.optimizer.step()
    handle.step()
    assert handle.get_last_lr() == [0.05]


def test_an_attached_scheduler_of_torch_gives_torchs_results(backend):
    twin = Twin([numbers(33), numbers(1025)], backend, HYPER["momentum-decay"])
    kinds = [
        lambda o: lr_scheduler.StepLR(o, 2, gamma=0.5),
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.3, total_steps=40, cycle_momentum=True),
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5),
    ]
    for make in kinds:
        pair = [make(optimizer) for optimizer in twin.both]
        for step in range(10):
            twin.step()
            for scheduler in pair:
                scheduler.step(*([1.0 + step % 3] if "Plateau" in type(scheduler).__name__ else []))
        twin.check()
    assert rates(twin.opt)[0] != 0.1


@pytest.mark.parametrize("schedule", [None, ExponentialLR(0.5)], ids=repr)
def test_capturable_keeps_one_live_cell(backend, schedule):
    optimizer = one(backend, schedule=schedule, capturable=True)
    plain = one(backend, schedule=schedule)
    cell = optimizer.param_groups[0]["lr"]
    address = cell.data_ptr()
    assert cell.dtype is torch.float64
    assert cell.dim() == 0
    assert cell.item() == 0.1

    def both(do):
        for o in (optimizer, plain):
            do(o)
        assert optimizer.param_groups[0]["lr"] is cell
        assert cell.data_ptr() == address
        assert [cell.item()] == rates(plain) == plain.scheduler.get_last_lr()
        assert optimizer.scheduler.get_last_lr() == rates(plain)
        ours, theirs = (o.param_groups[0]["params"][0] for o in (optimizer, plain))
        assert_same_bits(ours, theirs)

    def step(o):
        give(o)
        o.step()

    both(step)
    both(step)
    saved = plain.state_dict()
    both(step)
    both(lambda o: o.load_state_dict(saved))
    both(step)
    cell.fill_(0.3)
    plain.param_groups[0]["lr"] = 0.3
    both(step)
    optimizer.param_groups[0]["lr"] = plain.param_groups[0]["lr"] = 0.7
    both(step)
    assert type(optimizer.state_dict()["param_groups"][0]["lr"]) is float


def test_capturable_with_an_attached_scheduler_of_torch(backend):
    optimizer = one(backend, capturable=True)
    cell = optimizer.param_groups[0]["lr"]
    attached = lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for step in range(1, 4):
        optimizer.step()
        attached.step()
        assert optimizer.param_groups[0]["lr"] is cell
        assert cell.item() == 0.1 * 0.5**step


def test_defaults_reach_groups_added_later(backend):
    optimizer = one(backend, momentum=0.9, weight_decay=0.1)
    optimizer.add_param_group({"params": [leaf(numbers(3))], "lr": 0.5})
    group = optimizer.param_groups[1]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.9, 0.1)
    assert optimizer.defaults["momentum"] == 0.9


@pytest.mark.parametrize("every", [1, None])
@pytest.mark.parametrize("plateau", [False, True])
@pytest.mark.parametrize("stepped", [False, True])
def test_a_handle_that_is_only_fed_is_a_plateau(backend, every, plateau, stepped):
    schedule = [ExponentialLR(0.5)] * stepped + [ReduceLROnPlateau()] * plateau
    handle = one(backend, schedule=schedule, schedule_every=every).scheduler
    only_fed = plateau and not (stepped and every is None)
    assert isinstance(handle, lr_scheduler.ReduceLROnPlateau) is only_fed
    assert isinstance(handle, lr_scheduler.LRScheduler)
    if only_fed:
        handle.step(1.0)
        assert handle.get_last_lr() == [0.1]


def test_a_handle_tells_what_onecycle_has_left(backend):
    optimizer = one(backend, momentum=0.9, schedule=OneCycleLR(0.3, 5), schedule_every=None)
    handle, theirs = optimizer.scheduler, sgd([leaf(numbers(9))], lr=0.1, momentum=0.9)
    other = lr_scheduler.OneCycleLR(theirs, 0.3, 5)
    for each in (optimizer, theirs):
        each.step()
    for _ in range(2):
        assert (handle._step_count, handle.total_steps) == (other._step_count, other.total_steps)
        for each in (handle, other):
            each.step()
            each._step_count += 1
    assert handle.state_dict()["_step_count"] == other.state_dict()["_step_count"] == 5
    assert not hasattr(one(backend, schedule=StepLR(3)).scheduler, "total_steps")
    assert not hasattr(one(backend).scheduler, "_step_count")
