"""Loss scaling: GradScaler's loop, and the two attributes it sets on an optimizer."""

import pytest
import torch
from cases import HYPER
from support.bits import assert_same_bits
from support.twin import assert_unchanged, leaf, momentum, numbers, rates, sgd, snapshot

from lrfused import ExponentialLR, FusedDecaySGD

pytestmark = pytest.mark.backends(
    "host", "emulated", reason="test_gpu_scaling.py runs the like of these on a GPU"
)

SIZES = (1, 33, 1025)
HYPERS = {name: HYPER[name] for name in ("plain", "momentum-decay", "maximize-nesterov")}
CAN_UNSCALE = [torch.float32, torch.float64, torch.bfloat16]


def optimizer_of(backend, hyper, dtype=torch.float32, **kwargs):
    params = [leaf(numbers(n, dtype=dtype, seed=n)) for n in SIZES]
    return FusedDecaySGD(params, lr=0.1, backend=backend, **hyper, **kwargs), params


def give(params, step, scale=1.0):
    for i, p in enumerate(params):
        p.grad = numbers(*p.shape, dtype=p.dtype, seed=step * 10 + i) * scale


def step_with(optimizer, found_inf=None, grad_scale=None):
    """Step with the attributes that GradScaler sets before and deletes after."""
    optimizer.found_inf, optimizer.grad_scale = found_inf, grad_scale
    optimizer.step()
    del optimizer.found_inf, optimizer.grad_scale


@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_a_loop_with_gradscaler_equals_torchs(backend, hyper):
    def train(make):
        params = [leaf(numbers(n, seed=n)) for n in SIZES]
        optimizer = make(params)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        history = []
        for step in range(12):
            optimizer.zero_grad()
            loss = sum((p * numbers(*p.shape, seed=step + 20)).sum() for p in params)
            if step in (0, 5):
                loss = loss * torch.inf
            scaler.scale(loss).backward()
            if step % 3 == 0:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(params, 1.0)
            scaler.step(optimizer)
            scaler.update()
            history.append((scaler.get_scale(), [p.detach().clone() for p in params]))
        return history

    ours = train(lambda params: FusedDecaySGD(params, lr=0.1, backend=backend, **hyper))
    theirs = train(lambda params: sgd(params, lr=0.1, **hyper))
    for step, ((scale, params), (want_scale, want)) in enumerate(zip(ours, theirs, strict=True)):
        assert scale == want_scale
        for i, (p, q) in enumerate(zip(params, want, strict=True)):
            assert_same_bits(p, q, f"step {step}, parameter {i}")


FOUND = {"one": 1.0, "two": 2.0, "nan": torch.nan, "inf": torch.inf, "minus": -1.0, "tiny": 1e-40}


@pytest.mark.parametrize("scale", [None, 1024.0])
@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND)
def test_found_inf_skips_the_update_and_not_the_schedule(backend, found, scale):
    optimizer, params = optimizer_of(backend, HYPER["maximize-all"], schedule=ExponentialLR(0.5))
    scale = None if scale is None else torch.tensor(scale)
    for step in range(4):
        give(params, step)
        before = snapshot(optimizer)
        step_with(optimizer, torch.tensor(found), scale)
        assert rates(optimizer) == [0.1 * 0.5 ** (2 * step + 1)]
        assert optimizer.scheduler.last_epoch == 2 * step + 1
        for p, then in zip(params, before["params"], strict=True):
            assert_same_bits(p, then, "a parameter in a skipped step")
        for p, then in zip(params, before["momentum"], strict=True):
            now = momentum(optimizer, p)
            if then is not None:
                assert_same_bits(now, then, "a momentum in a skipped step")
        optimizer.step()


@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
@pytest.mark.parametrize("dtype", CAN_UNSCALE, ids=str)
def test_a_first_step_skipped_leaves_the_next_one_first(backend, hyper, dtype):
    skipped, mine = optimizer_of(backend, hyper, dtype)
    straight, other = optimizer_of(backend, hyper, dtype)
    for _ in range(2):
        give(mine, 77, scale=torch.nan)
        step_with(skipped, torch.tensor(1.0), torch.tensor(4.0))
    for step in range(3):
        give(mine, step)
        give(other, step)
        skipped.step()
        straight.step()
        for p, q in zip(mine, other, strict=True):
            assert_same_bits(p, q)


@pytest.mark.parametrize("scale", [1024.0, 3.0, 65536.0, 0.7, 1e-3])
@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
@pytest.mark.parametrize("dtype", CAN_UNSCALE, ids=str)
def test_grad_scale_equals_unscaling_first(backend, dtype, hyper, scale):
    optimizer, mine = optimizer_of(backend, hyper, dtype)
    straight, other = optimizer_of(backend, hyper, dtype)
    scale = torch.tensor(scale)
    inverse = scale.double().reciprocal().float()
    for step in range(4):
        give(mine, step, scale.item())
        given = [p.grad.clone() for p in mine]
        give(other, step, scale.item())
        found = torch.zeros(())
        torch._amp_foreach_non_finite_check_and_unscale_([q.grad for q in other], found, inverse)
        assert found.item() == 0.0
        step_with(optimizer, found, scale)
        straight.step()
        for p, q, grad in zip(mine, other, given, strict=True):
            assert_same_bits(p, q, f"step {step}")
            if hyper.get("momentum"):
                assert_same_bits(momentum(optimizer, p), momentum(straight, q), f"step {step}")
            assert_same_bits(p.grad, grad, "a gradient stays as the user left it")


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_the_attributes_may_be_of_shape_one_or_none(backend, shape):
    optimizer, mine = optimizer_of(backend, HYPER["momentum"])
    straight, other = optimizer_of(backend, HYPER["momentum"])
    pairs = [
        (torch.zeros(shape), torch.ones(shape)),
        (None, None),
        (torch.zeros(shape), None),
        (torch.full(shape, 5.0), None),
    ]
    for step, (found, scale) in enumerate(pairs):
        give(mine, step)
        give(other, step)
        step_with(optimizer, found, scale)
        if found is None or found.item() == 0:
            straight.step()
        for p, q in zip(mine, other, strict=True):
            assert_same_bits(p, q, f"step {step}")


def test_a_refused_step_under_scaling_changes_nothing(backend):
    optimizer, params = optimizer_of(backend, HYPER["momentum"], schedule=ExponentialLR(0.5))
    give(params, 0)
    optimizer.step()
    give(params, 1)
    params[-1].grad = params[-1].grad.to_sparse()
    optimizer.param_groups[-1]["weight_decay"] = 0.1
    before = snapshot(optimizer)
    with pytest.raises(RuntimeError, match="sparse"):
        step_with(optimizer, torch.tensor(0.0), torch.tensor(2.0))
    assert_unchanged(optimizer, before)


def test_gradscaler_skips_the_whole_step_and_the_loop_advances_the_schedule(backend):
    params, other = [leaf(numbers(33))], [leaf(numbers(33))]
    ours = FusedDecaySGD(
        params, lr=0.1, schedule=ExponentialLR(0.5), schedule_every=None, backend=backend
    )
    theirs = sgd(other, lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.5)
    for optimizer, values, handle in ((ours, params, ours.scheduler), (theirs, other, scheduler)):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for step in range(4):
            optimizer.zero_grad()
            loss = (values[0] * numbers(33, seed=step)).sum() * (torch.inf if step == 2 else 1)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            handle.step()
    assert_same_bits(params[0], other[0])
    assert rates(ours) == rates(theirs) == [0.1 * 0.5**4]
