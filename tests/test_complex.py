"""Complex parameters: torch's for-loop to the last bit, beside real ones on the fast path."""

import copy
import io
import pickle

import pytest
import torch
from cases import HYPER, with_lr
from support.bits import assert_same_bits
from support.contract import nothing_changes
from support.twin import assert_same_state, leaf, numbers, sgd

from lrfused import ExponentialLR, FusedDecaySGD, fuse, update_in_backward

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf")  # of torch's constructors, once

DTYPES = [torch.complex64, torch.complex128, torch.complex32]
SIZES = [(), (1,), (7,), (33,), (0,), (5, 9)]


class Pair:
    """A FusedDecaySGD and torch's for-loop over real and complex parameters."""

    def __init__(self, backend, dtype=torch.complex64, hyper=HYPER["momentum"], **kwargs):
        values = [numbers(70), *(numbers(*n, dtype=dtype, seed=5) for n in SIZES)]
        self.mine, self.other = ([leaf(v) for v in values] for _ in range(2))
        hyper = with_lr(hyper)
        self.ours = FusedDecaySGD(
            self.mine, schedule=ExponentialLR(0.9), backend=backend, **hyper, **kwargs
        )
        self.theirs = sgd(self.other, **hyper)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.theirs, 0.9)
        self.steps = 0

    def give(self):
        for params in (self.mine, self.other):
            for i, p in enumerate(params):
                p.grad = numbers(*p.shape, dtype=p.dtype, seed=10 * self.steps + i + 10)
        self.steps += 1

    def run(self, steps):
        for _ in range(steps):
            self.give()
            self.ours.step()
            self.theirs.step()
            self.scheduler.step()
            assert_same_state(self.ours, self.theirs, f"step {self.steps}")


@pytest.mark.parametrize("hyper", HYPER)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_complex_parameters_have_torchs_bits(backend, dtype, hyper):
    Pair(backend, dtype, HYPER[hyper]).run(3)


@pytest.mark.parametrize("layout", ["transposed", "conjugated", "strided", "imaginary"])
def test_complex_views(backend, layout):
    make = {
        "transposed": lambda x: x.T.contiguous().T,
        "conjugated": lambda x: x.conj(),
        "strided": lambda x: x.repeat_interleave(2, 0)[::2],
        "imaginary": lambda x: torch.complex(torch.zeros_like(x.real), x.imag),
    }[layout]
    value = numbers(6, 5, dtype=torch.complex64)
    mine, other = (make(value.clone()).detach().requires_grad_() for _ in range(2))
    ours = FusedDecaySGD([mine], lr=0.1, momentum=0.9, weight_decay=0.1, backend=backend)
    theirs = sgd([other], lr=0.1, momentum=0.9, weight_decay=0.1)
    for step in range(3):
        for p in (mine, other):
            p.grad = make(numbers(6, 5, dtype=torch.complex64, seed=step + 1))
        ours.step()
        theirs.step()
        assert_same_state(ours, theirs)


def test_numbers_beyond_the_dtype_are_refused_where_torch_refuses_them(backend):
    for dtype, value in ((torch.complex64, 1e39), (torch.complex32, 1e5), (torch.complex128, 1e39)):
        pair = Pair(backend, dtype)
        del pair.mine[0], pair.other[0]
        for optimizer, params in ((pair.ours, pair.mine), (pair.theirs, pair.other)):
            optimizer.param_groups[0].update(params=params, lr=value)
        pair.give()
        if dtype is torch.complex128:
            pair.ours.step()
            pair.theirs.step()
            for mine, other in zip(pair.mine, pair.other, strict=True):
                assert_same_bits(mine, other)
            continue
        with pytest.raises(RuntimeError, match="overflow"):
            pair.theirs.step()
        before = [p.detach().clone() for p in pair.mine]
        with pytest.raises(RuntimeError, match="overflow"):
            pair.ours.step()
        for p, then in zip(pair.mine, before, strict=True):
            assert_same_bits(p, then)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_norm_is_that_of_the_magnitudes(backend, dtype):
    pair = Pair(backend, dtype, max_grad_norm=0.5)
    for _ in range(2):
        pair.give()
        pair.ours.step()
        squares = sum(float(p.grad.to(torch.complex128).abs().square().sum()) for p in pair.mine)
        # Both sums round differently, in fp64.
        assert float(pair.ours.grad_norm) == pytest.approx(squares**0.5, rel=1e-12)
    both = [Pair(name, dtype, max_grad_norm=0.5) for name in (backend, "reference")]
    for _ in range(2):
        for each in both:
            each.give()
            each.ours.step()
        assert_same_state(both[0].ours, both[1].ours)
    assert_same_bits(both[0].ours.grad_norm.cpu(), both[1].ours.grad_norm.cpu())


def test_a_gradscaler_is_refused_as_in_torch(backend):
    pair = Pair(backend, amp="fused")
    pair.give()
    scaler = torch.amp.GradScaler(numbers(1).device.type)
    scaler.scale(numbers(1).sum())
    with pytest.raises(NotImplementedError):
        scaler.unscale_(pair.theirs)
    pair.ours.grad_scale, pair.ours.found_inf = torch.tensor(2.0), torch.tensor(0.0)
    with nothing_changes(pair.ours), pytest.raises(RuntimeError, match="GradScaler"):
        pair.ours.step()


@pytest.mark.parametrize("masters", [True, "remainder"])
def test_complex_parameters_have_no_masters(backend, masters):
    pair = Pair(backend, master_weights=masters)
    pair.run(2)
    assert all(set(own) == {"momentum_buffer"} for own in pair.ours.state.values())


def through_state_dict(pair):
    file = io.BytesIO()
    torch.save(pair.ours.state_dict(), file)
    other = FusedDecaySGD(
        pair.mine, lr=3.0, momentum=0.9, schedule=ExponentialLR(0.9), backend=pair.ours.backend
    )
    other.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    return other


def through_fuse(pair):
    theirs = sgd(pair.mine, lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.9)
    theirs.load_state_dict(copy.deepcopy(pair.theirs.state_dict()))
    scheduler.load_state_dict(pair.scheduler.state_dict())
    return fuse(theirs, scheduler, schedule_every=1, backend=pair.ours.backend)[0]


@pytest.mark.parametrize(
    "how",
    [
        through_state_dict,
        through_fuse,
        lambda pair: copy.deepcopy(pair.ours),
        lambda pair: pickle.loads(pickle.dumps(pair.ours)),
    ],
    ids=["state_dict", "fuse", "deepcopy", "pickle"],
)
def test_a_run_goes_on(backend, how):
    pair = Pair(backend, hyper={"momentum": 0.9})
    pair.run(2)
    pair.ours = how(pair)
    pair.mine = pair.ours.param_groups[0]["params"]
    pair.run(2)


def test_updates_in_the_backward_pass(backend):
    pair = Pair(backend)
    update_in_backward(pair.ours)
    for _ in range(3):
        for params in (pair.mine, pair.other):
            sum((p * p.conj()).real.sum() for p in params).backward()
        assert all(p.grad is None for p in pair.mine)
        pair.ours.step()
        pair.theirs.step()
        pair.scheduler.step()
        pair.theirs.zero_grad()
        assert_same_state(pair.ours, pair.theirs)


@pytest.mark.backends("emulated", reason="only a device can capture")
def test_a_capturable_optimizer_takes_them(backend):
    pair = Pair(backend, capturable=True)
    for _ in range(3):
        pair.give()
        pair.ours.step()
        pair.theirs.step()
        pair.scheduler.step()
        for mine, other in zip(pair.mine, pair.other, strict=True):
            assert_same_bits(mine, other)


@pytest.mark.backends("host", reason="the operator takes the backend by itself")
def test_the_operator_takes_complex_parameters_and_no_sparse_gradients(backend):
    value, grad = numbers(7, dtype=torch.complex64), numbers(7, dtype=torch.complex64, seed=1)
    mine, other = value.clone(), leaf(value)
    other.grad = grad
    torch.ops.lrfused.sgd_([mine], [grad], [], torch.tensor(0.1))
    sgd([other], lr=float(torch.tensor(0.1))).step()
    assert_same_bits(mine, other)
    with pytest.raises(TypeError, match="dense gradients"):
        torch.ops.lrfused.sgd_([numbers(3)], [numbers(3).to_sparse()], [], torch.tensor(0.1))
