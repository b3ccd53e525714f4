"""An optimizer that was copied, loaded or fused is as ready for a capture as a new one."""

import copy
import pickle

import pytest
import torch
from cases import HYPER
from support.bits import assert_same_bits
from support.masters import Masters, master, values_of
from support.tape import not_emulated
from support.twin import assert_same_state, leaf, numbers, sgd

from lrfused import ExponentialLR, FusedDecaySGD, fuse

if why := not_emulated("cuda"):
    pytest.skip(f"cuda: {why}", allow_module_level=True)

MOMENTUM = HYPER["nesterov-decay"]
GAMMA = 0.9


def new(**kwargs):
    params = [leaf(numbers(n, seed=n)) for n in (1025, 33)]
    return FusedDecaySGD(
        params, lr=0.1, **MOMENTUM, schedule=ExponentialLR(GAMMA), backend="cuda",
        capturable=True, **kwargs,
    )  # fmt: skip


def torchs(optimizer, epoch=0):
    """Return torch's for-loop over copies of an optimizer's parameters, and its scheduler."""
    params = [leaf(p) for p in optimizer.param_groups[0]["params"]]
    theirs = sgd(params, lr=0.1, **MOMENTUM)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(theirs, GAMMA)
    for _ in range(epoch):
        theirs.step()  # without gradients
        scheduler.step()
    return theirs, scheduler


def copied(make):
    ours = make(new())
    return ours, *torchs(ours)


def loaded(state=lambda theirs: theirs.state_dict()):
    ours = new()
    theirs, scheduler = torchs(ours)
    ours.load_state_dict(state(theirs))
    return ours, theirs, scheduler


def without_momentum(theirs):
    """Return a checkpoint as torch's SGD writes it where a buffer is not made yet."""
    packed = theirs.state_dict()
    return {**packed, "state": {i: {"momentum_buffer": None} for i in range(2)}}


def with_a_loaded_schedule():
    ours = new()
    theirs, scheduler = torchs(ours, epoch=3)
    ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"]
    ours.scheduler.load_state_dict(scheduler.state_dict())
    return ours, theirs, scheduler


def fused():
    theirs, scheduler = torchs(new(), epoch=2)
    for q in theirs.param_groups[0]["params"]:
        theirs.state[q] = {"momentum_buffer": None}
    oracle, of_oracle = torchs(theirs, epoch=2)
    ours, _ = fuse(theirs, scheduler, backend="cuda", capturable=True, schedule_every=1)
    return ours, oracle, of_oracle


MADE = {
    "deep copy": lambda: copied(copy.deepcopy),
    "pickled": lambda: copied(lambda optimizer: pickle.loads(pickle.dumps(optimizer))),
    "fresh checkpoint": loaded,
    "buffers of None": lambda: loaded(without_momentum),
    "loaded schedule": with_a_loaded_schedule,
    "fused": fused,
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_its_first_step_may_be_a_captured_one(tape, make):
    ours, theirs, scheduler = make()
    mine, other = (o.param_groups[0]["params"] for o in (ours, theirs))
    for i, (p, q) in enumerate(zip(mine, other, strict=True)):
        p.grad, q.grad = numbers(*p.shape, seed=i), numbers(*p.shape, seed=i)
    tape.capture(ours.step)
    for _ in range(4):
        tape.replay()
        theirs.step()
        scheduler.step()
    assert ours.scheduler.get_last_lr() == scheduler.get_last_lr()
    assert_same_state(ours, theirs)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_copys_norm_finds_room_in_a_capture(tape, clip):
    ours = copy.deepcopy(new(max_grad_norm=clip))
    ours.max_grad_norm = 0.5
    for p in ours.param_groups[0]["params"]:
        p.grad = numbers(*p.shape)
    tape.capture(ours.step)
    assert len(tape) == 2


@pytest.mark.parametrize("make", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_weights_loaded_into_a_copy_are_its_masters(tape, make):
    bf16 = torch.bfloat16
    first = Masters(values_of([70], bf16), True, "cuda", MOMENTUM, capturable=True)
    pair = Masters(values_of([70], bf16), True, "compiled", MOMENTUM)
    pair.ours = make(first.ours)
    pair.mine = pair.ours.param_groups[0]["params"]
    assert pair.mine[0] is not first.mine[0]
    with torch.no_grad():
        pair.mine[0].copy_(numbers(70, dtype=bf16, seed=5))
        pair.other[0].copy_(pair.mine[0])
    pair.step(0)
    assert_same_bits(master(first.ours, first.mine[0]), first.mine[0].float())


def test_a_master_that_was_loaded_stays_in_a_copy():
    bf16 = torch.bfloat16
    made = [Masters(values_of([70], bf16), True, "cuda", MOMENTUM, capturable=True) for _ in "ab"]
    made[0].step(0)
    fresh = made[1]
    fresh.ours.load_state_dict(made[0].ours.state_dict())
    twin = copy.deepcopy(fresh.ours)
    (p,) = twin.param_groups[0]["params"]
    assert_same_bits(twin.state[p]["master"], made[0].ours.state[made[0].mine[0]]["master"])


def refused(optimizer):
    optimizer.param_groups[0]["dampening"] = "0"
    with pytest.raises(TypeError, match="dampening"):
        optimizer.step()
    optimizer.param_groups[0]["dampening"] = 0.0


def skipped(optimizer):
    optimizer.grad_scale, optimizer.found_inf = 1.0, 1.0
    optimizer.step()
    optimizer.grad_scale = optimizer.found_inf = None


@pytest.mark.parametrize("step", [refused, skipped])
def test_weights_loaded_after_a_step_without_an_update_are_the_masters(step):
    bf16 = torch.bfloat16
    pair = Masters(values_of([70], bf16), True, "cuda", MOMENTUM, capturable=True)
    (p,), (q,) = pair.mine, pair.other
    with torch.no_grad():
        p.copy_(numbers(70, dtype=bf16, seed=4))  # so that the step makes the master anew
    p.grad = torch.ones_like(p)
    step(pair.ours)
    with torch.no_grad():
        p.copy_(numbers(70, dtype=bf16, seed=5))
        q.copy_(p)
    pair.step(0)
