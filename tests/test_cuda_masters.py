"""master_weights on the CUDA backend: streams of two widths, one launch, captured firsts."""

import itertools

import pytest
import torch
from cases import HYPER
from support.bits import assert_same_bits
from support.masters import Masters, master, of_each_kind, values_of
from support.tape import not_emulated
from support.twin import allow_gradient, leaf, numbers

from lrfused import ExponentialLR, FusedDecaySGD

if why := not_emulated("cuda"):
    pytest.skip(f"cuda: {why}", allow_module_level=True)

from lrfused import _C
from lrfused.backends import reference
from lrfused.backends.device import fallback

ITEM = 512  # vectors


@pytest.fixture(autouse=True)
def kernels_only(monkeypatch, request):
    """Raise where a step would be made by the reference."""

    def refuse(*args):
        raise AssertionError("the device was to make this step")

    if "reference" not in request.node.name:
        monkeypatch.setattr(fallback, "step", refuse)
        monkeypatch.setattr(reference.CheckedParameters, "__init__", refuse)


@pytest.mark.parametrize("kept", [4, 2], ids=["whole", "remainder"])
@pytest.mark.parametrize("wide", [2, 4], ids=["16 bits", "32 bits"])
def test_every_element_is_touched_once_and_nothing_outside(kept, wide):
    width = 4
    sizes = (2, wide, 4, kept, width)
    at = 1 << 20
    numels = [*range(5 * width + 1), ITEM * width + width, 2 * ITEM * width + 1]
    for numel, *phases in itertools.product(numels, *[range(width)] * 4):
        if numel > 100 and any(phases[1:]):
            continue
        addresses = [
            (i + 1) * at + phase * size
            for i, (phase, size) in enumerate(zip(phases, sizes, strict=False))
        ]
        elements, vectors = _C.touches_of(addresses, numel, sizes)
        where = f"{numel} elements at {addresses}"
        assert sorted(e for _, _, e in elements) == list(range(numel)), where
        param, grad, buffer, own = phases
        assert bool(vectors) == (param == buffer == own and numel > width + 3) or numel < 12, where
        for _, _, first in vectors:
            assert (param + first) % width == 0, where
            shift = (grad + first) % width
            assert first >= shift, where
            assert first - shift + (2 if shift else 1) * width <= numel, where


@of_each_kind
def test_streams_may_lie_at_any_address(dtype, kind):
    values = [numbers(60, dtype=dtype)[at : at + 41 + at] for at in range(9)]
    pair = Masters(values, kind, "cuda", HYPER["nesterov-decay"])
    for step in range(6):
        pair.step(step, wide=step % 2 == 1)
        for i, p in enumerate(pair.mine):  # others than the parameter's
            own = pair.ours.state[p]
            for key in own if step == 2 else ():
                at = (i + len(key)) % 4
                room = torch.empty(len(p) + at, dtype=own[key].dtype)
                own[key] = room[at:].copy_(own[key])


@of_each_kind
def test_gradients_may_lie_at_any_address(dtype, kind):
    pair = Masters([numbers(300, dtype=dtype) for _ in range(8)], kind, "cuda", {"momentum": 0.9})
    for step in range(3):
        for i, (p, q) in enumerate(zip(pair.mine, pair.other, strict=True)):
            given = allow_gradient(p, torch.float32 if step == 1 else dtype)
            p.grad = numbers(308, dtype=given, seed=i)[i : i + 300]
            q.grad = p.grad.float()
        pair.ours.step()
        pair.theirs.step()
        pair.check(f"step {step}")


@of_each_kind
def test_more_items_than_one(dtype, kind):
    pair = Masters(values_of([4096, 4097, 12_345, 3], dtype), kind, "cuda", HYPER["dampening"])
    for step in range(3):
        pair.step(step, missing=[step])


def test_an_fp32_stream_at_an_odd_address_goes_to_the_reference():
    pair = Masters(values_of([70, 33], torch.bfloat16), True, "cuda", {"momentum": 0.9})
    pair.step(0)
    own = pair.ours.state[pair.mine[0]]
    off = torch.frombuffer(bytearray(4 * 70 + 2), dtype=torch.float32, offset=2)
    own["momentum_buffer"] = off.copy_(own["momentum_buffer"])
    pair.step(1)
    pair.step(2, wide=True)


def test_one_launch_for_groups_of_all_dtypes_with_masters_and_without(tape):
    dtypes = (torch.bfloat16, torch.float32, torch.float16, torch.float64)

    def make(backend):
        params = [leaf(numbers(n, dtype=d, seed=n)) for n in (3, 1025, 0, 70) for d in dtypes]
        groups = [{"params": params[:7]}, {"params": params[7:], "lr": 0.3, "momentum": 0.0}]
        for i, p in enumerate(params):
            wide = p.dtype in dtypes[::2] and i % 3 == 0
            dtype = allow_gradient(p, torch.float32 if wide else p.dtype)
            p.grad = numbers(*p.shape, dtype=dtype, seed=i)
        schedule = ExponentialLR(0.9)
        return params, FusedDecaySGD(
            groups, lr=0.1, momentum=0.9, master_weights=True, schedule=schedule, backend=backend
        )

    mine, ours = make("cuda")
    other, theirs = make("compiled")
    ours.step()
    tape.capture(ours.step)
    assert len(tape) == 1
    for _ in range(3):
        tape.replay()
    for _ in range(4):
        theirs.step()
    for p, q in zip(mine, other, strict=True):
        assert_same_bits(p, q)
        assert list(ours.state[p]) == list(theirs.state[q])
        for key, value in ours.state[p].items():
            assert_same_bits(value, theirs.state[q][key], key)


@pytest.mark.parametrize("bound", [None, 0.5])
@pytest.mark.parametrize("hyper", ["momentum-decay", "nesterov", "plain"])
@of_each_kind
def test_the_first_step_may_be_a_captured_one(tape, dtype, kind, hyper, bound):
    kwargs = {"max_grad_norm": bound, "schedule": ExponentialLR(0.9)}
    pair = Masters(
        values_of([1025, 33], dtype), kind, "cuda", HYPER[hyper], capturable=True, **kwargs
    )
    theirs = Masters(values_of([1025, 33], dtype), kind, "compiled", HYPER[hyper], **kwargs)
    for params in (pair.mine, theirs.mine):
        for i, p in enumerate(params):
            p.grad = numbers(*p.shape, dtype=dtype, seed=i)
            p.grad[0] = -0.0
    tape.capture(pair.ours.step)
    assert len(tape) == 1 + (bound is not None)
    for replay in range(5):
        tape.replay()
        theirs.ours.step()
        for p, q in zip(pair.mine, theirs.mine, strict=True):
            assert_same_bits(p, q, f"replay {replay}")
            assert_same_bits(master(pair.ours, p), master(theirs.ours, q), f"replay {replay}")
        assert_same_bits(pair.ours.grad_norm, theirs.ours.grad_norm)
    assert pair.ours.scheduler.get_last_lr() == theirs.ours.scheduler.get_last_lr()


@of_each_kind
def test_a_capture_that_would_make_masters_is_refused(tape, dtype, kind):
    pair = Masters(values_of([70], dtype), kind, "cuda", {})
    (p,) = pair.mine
    p.grad = torch.ones_like(p)
    with pytest.raises(RuntimeError, match=r"cannot be captured.*masters"):
        tape.capture(pair.ours.step)
    assert not len(tape)
    assert not pair.ours.state


@of_each_kind
def test_weights_that_are_loaded_after_the_optimizer_was_made_are_the_masters(tape, dtype, kind):
    pair = Masters(values_of([70], dtype), kind, "cuda", {"momentum": 0.9}, capturable=True)
    (p,), (q,) = pair.mine, pair.other
    with torch.no_grad():
        p.copy_(numbers(70, dtype=dtype, seed=5))
        q.copy_(p)
    p.grad = torch.ones_like(p)
    if kind is True:
        with pytest.raises(RuntimeError, match="cannot be captured: a parameter was written"):
            tape.capture(pair.ours.step)
    pair.step(0)
    with torch.no_grad():
        p.zero_()  # from now on the master is the truth, and a remainder is not
    if kind is True:
        pair.step(1)


def test_masters_that_are_loaded_before_the_first_step_stay():
    made = [
        Masters(values_of([70], torch.bfloat16), True, "cuda", {"momentum": 0.9}, capturable=True)
        for _ in range(2)
    ]
    made[0].step(0)
    fresh = made[1]
    with torch.no_grad():
        fresh.mine[0].copy_(made[0].mine[0])
        fresh.other[0].copy_(made[0].other[0])
    fresh.ours.load_state_dict(made[0].ours.state_dict())
    fresh.theirs.load_state_dict(made[0].theirs.state_dict())
    fresh.step(1)


@pytest.mark.parametrize("count", [738, 739])
def test_masters_make_a_table_longer(tape, count):
    values = values_of([1 + i % 5 for i in range(count)], torch.bfloat16)
    pair = Masters(values, True, "cuda", {"momentum": 0.9})
    for step in range(2):
        pair.step(step)
    tape.capture(pair.ours.step)
    assert len(tape) == (1 if count == 738 else 2)
    tape.replay()
    pair.theirs.step()
    pair.check("a replay")
