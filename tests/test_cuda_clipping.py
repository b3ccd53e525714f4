"""max_grad_norm on the CUDA backend: the norm's kernel, captured steps, a host that never asks."""

import math

import pytest
import torch
from cases import DTYPES, HYPER, with_lr
from support.bits import assert_same_bits
from support.inside import program_of
from support.tape import assert_the_device_agrees, not_emulated
from support.twin import assert_same_state, leaf, momentum, numbers, same_layout

from lrfused import ExponentialLR, FusedDecaySGD
from lrfused.arithmetic.gradient_scaling import GradientScaling
from lrfused.arithmetic.norm import clip_coefficient, norm, square_sum

if why := not_emulated("cuda"):
    pytest.skip(f"cuda: {why}", allow_module_level=True)

from lrfused.backends.device import fallback

BOUND = 0.5


@pytest.fixture
def kernels_only(monkeypatch):
    """Raise where a step would be made by the reference."""

    def refuse(*args):
        raise AssertionError("the device was to make this step")

    monkeypatch.setattr(fallback, "step", refuse)


def make(backend, values, hyper="nesterov-decay", **kwargs):
    params = [leaf(value) for value in values]
    kwargs = {"max_grad_norm": BOUND, "schedule": ExponentialLR(0.9), **kwargs}
    return FusedDecaySGD(params, backend=backend, **with_lr(HYPER[hyper]), **kwargs)


def pair(sizes=(1025, 33, 5000), dtype=torch.float32, **kwargs):
    values = [numbers(n, dtype=dtype, seed=n) for n in sizes]
    return make("cuda", values, **kwargs), make("reference", values, **kwargs)


def params_of(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def give(optimizers, step, missing=()):
    """Hand out gradients; where there is one already, the numbers alone."""
    for optimizer in optimizers:
        for i, p in enumerate(params_of(optimizer)):
            grad = numbers(*p.shape, dtype=p.dtype, seed=100 * step + i + 1)
            if i in missing:
                p.grad = None
            elif p.grad is None:
                p.grad = grad
            else:
                p.grad.copy_(grad)


def assert_same_step(ours, theirs, when=""):
    assert_same_bits(ours.grad_norm, theirs.grad_norm, f"{when} norm")
    assert_same_state(ours, theirs, when)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_gradient_at_any_address_has_the_same_sum(kernels_only, dtype):
    width = 16 // dtype.itemsize
    sizes = [1, 3, 31, 127, 128, 129, 511, 513, 1100, 2049, 4095, 4096, 4097, 9000, 530_001]
    for at in range(width):
        for n in sizes if at < 2 else sizes[:-1]:
            grad = numbers(n + width, dtype=dtype, seed=n)[at : at + n]
            p = torch.zeros_like(grad)  # at an address of its own
            p.grad = same_layout(grad)
            optimizer = FusedDecaySGD([p], lr=0.1, max_grad_norm=1e9, backend="cuda")
            optimizer.step()
            want = norm([float(square_sum(grad))])
            assert optimizer.grad_norm.item() == want, f"{n} elements, {at} from a vector's first"


def test_a_parameter_without_a_gradient_keeps_its_place(kernels_only):
    ours, theirs = pair([70] * 300, hyper="momentum")
    for step, missing in enumerate([(), (0, 127, 128), range(150), range(1, 300)]):
        give((ours, theirs), step, missing)
        ours.step()
        theirs.step()
        assert_same_step(ours, theirs, f"step {step},")


def test_no_gradient_at_all_is_a_norm_of_0(kernels_only):
    ours, _ = pair()
    give((ours,), 0)
    ours.step()
    assert ours.grad_norm.item() > 0
    ours.zero_grad()
    ours.step()
    assert ours.grad_norm.item() == 0
    assert ours.scheduler.last_epoch == 2


@pytest.mark.parametrize("count", [1625, 1626])
def test_a_table_that_is_too_long_for_an_argument(kernels_only, tape, count):
    ours, theirs = pair([1 + i % 5 for i in range(count)], capturable=True)
    for step in range(2):
        give((ours, theirs), step)
        ours.step()
        theirs.step()
        assert_same_step(ours, theirs, f"step {step},")
    tape.capture(ours.step)
    assert len(tape) == -(-count // 1625) + -(-count // 902)
    for replay in range(2):
        give((ours, theirs), 5 + replay)
        tape.replay()
        theirs.step()
        ours.scheduler.get_last_lr()
        assert_same_step(ours, theirs, f"replay {replay},")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("warm", [0, 2])
def test_a_captured_step_clips_as_the_reference_does(kernels_only, tape, dtype, warm):
    ours, theirs = pair(dtype=dtype, capturable=True)
    for step in range(warm):
        give((ours, theirs), step)
        ours.step()
        theirs.step()
    give((ours, theirs), 0)
    tape.capture(ours.step)
    assert len(tape) == 2
    norms = ours.grad_norm
    for replay in range(6):
        give((ours, theirs), 10 + replay)
        if replay == 3:
            ours.grad_norm.fill_(-1)  # a replay writes it anew
        tape.replay()
        theirs.step()
        assert ours.grad_norm is norms
        assert_same_bits(norms, theirs.grad_norm)
        ours.scheduler.get_last_lr()
        assert_same_state(ours, theirs, f"replay {replay},")
    ours.step()
    theirs.step()
    assert ours.grad_norm is not norms
    assert_same_step(ours, theirs, "a step by hand after the replays")


def test_a_captured_step_goes_on_when_the_norm_takes_more_room(kernels_only, tape):
    values = [numbers(n, seed=n) for n in (33, 5000)]
    ours, theirs = make("cuda", values, schedule=None), make("reference", values, schedule=None)
    for step in range(2):
        give((ours, theirs), step)
        ours.step()
        theirs.step()
    tape.capture(ours.step)
    for optimizer in (ours, theirs):
        optimizer.add_param_group({"params": [leaf(numbers(300_000, seed=i)) for i in range(3)]})
    give((ours, theirs), 3)
    ours.step()
    theirs.step()
    assert_same_step(ours, theirs, "the larger step")
    for p in params_of(theirs)[2:]:
        p.grad = None
    give((ours,), 4)
    for p, q in zip(params_of(ours)[:2], params_of(theirs)[:2], strict=True):
        q.grad = p.grad.clone()
    tape.replay()
    theirs.step()
    for p, q in zip(params_of(ours), params_of(theirs), strict=True):
        assert_same_bits(p, q)
        assert_same_bits(momentum(ours, p), momentum(theirs, q))
    give((ours, theirs), 5)
    ours.step()
    theirs.step()
    assert_same_step(ours, theirs, "after the replay")


def test_a_capture_that_the_norm_has_no_room_for_is_refused(tape):
    ours, theirs = pair(max_grad_norm=None)
    give((ours, theirs), 0)
    ours.step()
    theirs.step()
    ours.max_grad_norm = theirs.max_grad_norm = BOUND
    before = [p.detach().clone() for p in params_of(ours)]
    with pytest.raises(RuntimeError, match=r"cannot be captured: max_grad_norm was set"):
        tape.capture(ours.step)
    for p, then in zip(params_of(ours), before, strict=True):
        assert_same_bits(p, then)
    ours.step()
    theirs.step()
    assert_same_step(ours, theirs)
    tape.capture(ours.step)


def test_odd_tensors_are_clipped_by_the_reference_and_not_captured(tape):
    ours, theirs = pair()
    for step in range(3):
        give((ours, theirs), step)
        for optimizer in (ours, theirs):
            p = params_of(optimizer)[0]
            p.grad = p.grad.repeat_interleave(2)[::2]
        if step == 2:
            with pytest.raises(RuntimeError, match="cannot be captured"):
                tape.capture(ours.step)
        ours.step()
        theirs.step()
        assert_same_step(ours, theirs, f"step {step},")
        for optimizer in (ours, theirs):
            params_of(optimizer)[0].grad = None


# -- GradScaler ----------------------------------------------------------------------------------


def scaled(optimizers, scale, found):
    for optimizer in optimizers:
        optimizer.grad_scale = torch.tensor(scale)
        optimizer.found_inf = torch.tensor(found)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_host_asks_neither_for_the_norm_nor_for_what_gradscaler_found(dtype, monkeypatch):
    ours, theirs = pair(dtype=dtype, amp="fused")
    give((ours, theirs), 0)
    for optimizer in (ours, theirs):
        optimizer.step()

    def refuse(*args):
        raise AssertionError("the host waits")

    for step, (found, bad) in enumerate(
        [(0.0, 0.0), (1.0, 0.0), (0.0, math.inf), (0.0, math.nan), (math.nan, 0.0), (0.0, 0.0)]
    ):
        give((ours, theirs), step)
        for optimizer in (ours, theirs):
            params_of(optimizer)[-1].grad[4097] += bad
        scaled((ours, theirs), 3.0, found)
        theirs.step()
        with monkeypatch.context() as patched:
            patched.setattr(GradientScaling, "skips", refuse)
            patched.setattr(GradientScaling, "inv_scale", refuse)
            patched.setattr(torch.Tensor, "item", refuse)
            patched.setattr(torch.Tensor, "__float__", refuse)
            ours.step()
        assert_same_step(ours, theirs, f"step {step},")
        assert_the_device_agrees(program_of(ours))


def test_replays_skip_what_is_not_finite(kernels_only, tape):
    ours, theirs = pair(amp="fused", capturable=True)
    scaled((ours, theirs), 3.0, 0.0)
    give((ours, theirs), 0)
    tape.capture(ours.step)
    bad = [0.0, math.inf, 0.0, math.nan, -math.inf, 0.0]
    for replay, value in enumerate(bad):
        give((ours, theirs), replay)
        for optimizer in (ours, theirs):
            params_of(optimizer)[1].grad[7] += value
        tape.replay()
        theirs.step()
        ours.scheduler.get_last_lr()
        assert_same_step(ours, theirs, f"replay {replay},")


def test_with_on_update_the_schedule_rests_and_nothing_is_captured(tape):
    ours, theirs = pair(amp="fused", advance="on_update", capturable=True)
    for step, bad in enumerate([0.0, math.inf, 0.0, math.nan]):
        give((ours, theirs), step)
        for optimizer in (ours, theirs):
            params_of(optimizer)[0].grad[3] += bad
        scaled((ours, theirs), 1024.0, 0.0)
        ours.step()
        theirs.step()
        assert_same_step(ours, theirs, f"step {step},")
        assert ours.scheduler.last_epoch == (step + 2) // 2
    with pytest.raises(RuntimeError, match="cannot be captured: with advance='on_update'"):
        tape.capture(ours.step)


@pytest.mark.parametrize("scale", [0.7, 3.0])
def test_a_scale_that_the_host_knows_needs_no_answer(scale):
    """GradScaler's numbers may be floats; the norm is on the device nevertheless."""
    ours, theirs = pair()
    for step, bad in enumerate([0.0, math.inf, 0.0]):
        give((ours, theirs), step)
        for optimizer in (ours, theirs):
            params_of(optimizer)[0].grad[3] += bad
            optimizer.grad_scale = scale
            optimizer.step()
        assert_same_step(ours, theirs, f"step {step},")
        assert clip_coefficient(ours.grad_norm.item(), BOUND) < 1
