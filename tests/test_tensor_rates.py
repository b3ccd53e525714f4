"""A learning rate that is a tensor stays the user's: who fills it sets the next step's rate."""

import copy
import pickle

import pytest
import torch
from support.bits import assert_same_bits
from torch.optim import lr_scheduler

from lrfused import ExponentialLR, FusedDecaySGD, LinearLR, StepLR, fuse

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def parameter():
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.full_like(p, 0.5)
    return p


def made(backend, rate, how="FusedDecaySGD", **settings):
    """Return a parameter and an optimizer that has a tensor as its rate."""
    p = parameter()
    if how == "fuse":
        theirs = torch.optim.SGD([p], lr=rate, momentum=0.9)
        return p, fuse(theirs, backend=backend, **settings)[0]
    if how == "group":
        return p, FusedDecaySGD(
            [{"params": [p], "lr": rate}], lr=9.0, momentum=0.9, backend=backend, **settings
        )
    if how == "assigned":
        optimizer = FusedDecaySGD([p], lr=9.0, momentum=0.9, backend=backend, **settings)
        optimizer.param_groups[0]["lr"] = rate
        return p, optimizer
    return p, FusedDecaySGD([p], lr=rate, momentum=0.9, backend=backend, **settings)


def test_its_memory_may_be_shared_with_other_processes(backend):
    both = []
    for shared in (False, True):
        p, optimizer = made(backend, 0.5, schedule=StepLR(1, 0.5), capturable=True)
        for i in range(6):
            if shared and i == 3:
                optimizer.param_groups[0]["lr"].share_memory_()
                torch.full((4096,), 9.0, dtype=torch.float64)  # where it was
            optimizer.step()
        both.append((p, float(optimizer.param_groups[0]["lr"]), optimizer.lr_used))
    assert_same_bits(both[0][0], both[1][0])
    assert both[0][1:] == both[1][1:]


HOWS = ["FusedDecaySGD", "group", "assigned", "fuse"]


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_what_is_filled_in_is_the_next_rate(backend, how, capturable, shape):
    ours, theirs = (torch.full(shape, 0.1) for _ in range(2))
    p, optimizer = made(backend, ours, how, capturable=capturable)
    other = parameter()
    reference = torch.optim.SGD([other], lr=theirs, momentum=0.9, foreach=False)
    for rate in (None, 0.3, 0.3, 0.0, 1e-3):
        if rate is not None:
            ours.fill_(rate), theirs.fill_(rate)
        optimizer.step(), reference.step()
        assert optimizer.param_groups[0]["lr"] is ours
        assert_same_bits(p, other)
    assert optimizer.lr_used == [theirs.item()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_schedule_fills_it(backend, dtype):
    rate = torch.tensor(0.1, dtype=dtype)
    _, optimizer = made(backend, rate, schedule=ExponentialLR(0.9))
    exact = rate.item()
    for _ in range(5):
        optimizer.step()
        exact *= 0.9
        assert rate.item() == torch.tensor(exact, dtype=dtype).item()
        assert optimizer.scheduler.get_last_lr() == [exact]
    assert optimizer.lr_used[0] * 0.9 == exact  # never rounded to the tensor's dtype
    rate.fill_(0.5)
    optimizer.step()
    assert optimizer.lr_used == [0.5]
    assert rate.item() == torch.tensor(0.45, dtype=dtype).item()


def test_a_warmup_fills_it_at_once(backend):
    rate = torch.tensor(0.5, dtype=torch.float64)
    _, optimizer = made(backend, rate, schedule=LinearLR(0.25, total_iters=3))
    assert rate.item() == 0.125
    optimizer.step()
    assert optimizer.lr_used == [0.125]


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("how", HOWS)
def test_torchs_schedulers_fill_it(backend, how, capturable):
    ours, theirs = torch.tensor(0.1), torch.tensor(0.1)
    p, optimizer = made(backend, ours, how, capturable=capturable)
    other = parameter()
    reference = torch.optim.SGD([other], lr=theirs, momentum=0.9, foreach=False)
    schedulers = [lr_scheduler.StepLR(o, 2, 0.5) for o in (optimizer, reference)]
    for _ in range(5):
        optimizer.step(), reference.step()
        for scheduler in schedulers:
            scheduler.step()
        assert ours.item() == theirs.item()
    assert_same_bits(p, other)


def test_another_rate_that_is_assigned_takes_its_place(backend):
    first, second = torch.tensor(0.1), torch.tensor(0.25)
    _, optimizer = made(backend, first)
    optimizer.param_groups[0]["lr"] = second
    optimizer.step()
    first.fill_(9.0)
    optimizer.step()
    assert optimizer.lr_used == [0.25]
    optimizer.param_groups[0]["lr"] = 0.5
    second.fill_(9.0)
    optimizer.step()
    assert optimizer.lr_used == [0.5]
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_the_checkpoint_has_the_exact_rate(backend):
    rate = torch.tensor(0.1)
    _, optimizer = made(backend, rate, schedule=ExponentialLR(0.9))
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    assert type(saved["param_groups"][0]["lr"]) is float
    _, resumed = made(backend, torch.tensor(0.1), schedule=ExponentialLR(0.9))
    resumed.load_state_dict(saved)
    for _ in range(3):
        optimizer.step(), resumed.step()
        assert optimizer.lr_used == resumed.lr_used


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_has_a_tensor_of_its_own(backend, copied):
    rate = torch.tensor(0.1)
    _, optimizer = made(backend, rate)
    other = copied(optimizer)
    rate.fill_(0.7)
    other.param_groups[0]["lr"].fill_(0.2)
    optimizer.step(), other.step()
    assert optimizer.lr_used == [torch.tensor(0.7).item()]
    assert other.lr_used == [torch.tensor(0.2).item()]


def test_one_tensor_for_several_groups_is_theirs_together(backend):
    rate = torch.tensor(0.5)
    groups = [{"params": [parameter()]} for _ in range(2)]
    optimizer = FusedDecaySGD(groups, lr=rate, backend=backend)
    rate.fill_(0.25)
    optimizer.step()
    assert optimizer.lr_used == [0.25, 0.25]
    del optimizer.param_groups[0]
    rate.fill_(0.125)
    optimizer.step()
    assert optimizer.lr_used == [0.125]


def test_a_failed_edit_leaves_it(backend):
    rate = torch.tensor(0.5)
    _, optimizer = made(backend, rate, schedule=StepLR(2, 0.5), schedule_every=None)
    optimizer.step()
    with pytest.raises(TypeError):
        optimizer.scheduler.gamma = "half"
    assert rate.item() == 0.5
    optimizer.scheduler.step()
    assert rate.item() == 0.5


def test_a_tensor_that_requires_grad_is_filled_all_the_same(backend):
    rate = torch.tensor(0.5, requires_grad=True)
    _, optimizer = made(backend, rate, schedule=ExponentialLR(0.5))
    optimizer.step()
    assert rate.item() == 0.25


@pytest.mark.parametrize("how", HOWS)
def test_a_tensor_on_a_device_is_refused(backend, how):
    device = "cuda" if torch.cuda.is_available() else "meta"
    rate = torch.tensor(0.5, device=device)
    if how == "fuse" and device == "meta":
        pytest.skip("torch's SGD takes no rate on the meta device")
    with pytest.raises(TypeError, match=r"lr'?\]? (is a tensor on|must be one real number)"):
        made(backend, rate, how)[1].step()
