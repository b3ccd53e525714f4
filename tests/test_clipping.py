"""max_grad_norm: the norm, its order and its bits; the coefficient, applied inside the update."""

import math
from fractions import Fraction

import pytest
import torch
import torch.distributed as dist
from cases import DTYPES, HYPER, SIZES, TORCH_IS_ORACLE, with_lr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bits import assert_same_bits
from support.twin import assert_same_state, assert_unchanged, leaf, momentum, numbers, sgd, snapshot
from torch.nn.utils import clip_grad_norm_

from lrfused import ExponentialLR, FusedDecaySGD
from lrfused.arithmetic.norm import clip_coefficient, ordered_sum

pytestmark = pytest.mark.backends(
    "host", "emulated", reason="test_gpu_scaling.py runs the like of these on a GPU"
)

randomly = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
EPS = 2.0**-24  # one rounding in fp32


def optimizer_of(backend, values, max_grad_norm=0.5, **hyper):
    params = [leaf(value) for value in values]
    optimizer = FusedDecaySGD(
        params, max_grad_norm=max_grad_norm, backend=backend, **with_lr(hyper)
    )
    return optimizer, params


def values_of(sizes, dtype=torch.float32):
    return [numbers(n, dtype=dtype, seed=n) for n in sizes]


def give(params, step, missing=()):
    for i, p in enumerate(params):
        p.grad = numbers(*p.shape, dtype=p.dtype, seed=100 * step + i + 1)
        if i in missing:
            p.grad = None


@pytest.mark.parametrize("n", [0, 1, 2, 127, 128, 129, 255, 256, 4095, 4096, 4097])
def test_the_order_of_a_sum_is_the_one_written_down(n):
    x = numbers(n, dtype=torch.float64, seed=n)
    lane = [0.0] * 128
    for i, value in enumerate(x.tolist()):
        lane[i % 128] += value
    w = 64
    while w:
        for j in range(w):
            lane[j] += lane[j + w]
        w //= 2
    assert ordered_sum(x).item() == lane[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_norm_is_the_exact_one_but_for_some_roundings_in_fp64(backend, dtype):
    optimizer, params = optimizer_of(backend, values_of(SIZES[:-1], dtype))
    assert optimizer.grad_norm.isnan()
    give(params, 1, missing=[4])
    optimizer.step()
    squares = (Fraction(x) ** 2 for p in params if p.grad is not None for x in p.grad.tolist())
    exact = Fraction(sum(squares))
    got = Fraction(optimizer.grad_norm.item()) ** 2
    # 32 rows of a piece, 7 folds, the same of few pieces and of few tensors; the root
    assert abs(got - exact) <= exact * Fraction(64, 2**53)
    assert optimizer.grad_norm.dtype == torch.float64
    assert optimizer.grad_norm.shape == ()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", ["plain", "maximize-nesterov-decay", "dampening"])
def test_every_size_clips_to_the_same_bits_on_every_backend(backend, hyper, dtype):
    ours, mine = optimizer_of(backend, values_of(SIZES, dtype), **HYPER[hyper])
    theirs, other = optimizer_of("reference", values_of(SIZES, dtype), **HYPER[hyper])
    for step in range(3):
        for optimizer, params in ((ours, mine), (theirs, other)):
            give(params, step, missing=[step])
            optimizer.step()
        assert_same_bits(ours.grad_norm, theirs.grad_norm)
        assert_same_state(ours, theirs, f"step {step},")


def test_odd_layouts_are_summed_in_the_same_order_on_every_backend(backend):
    def values():
        return [
            numbers(9, 5, 7, 3).to(memory_format=torch.channels_last),
            numbers(65, 66, seed=1).t(),
            numbers(130, 9, seed=2)[:, ::2],
            numbers(33, seed=3)[1:],
            numbers(8, 700, seed=4),
        ]

    def step(backend):
        optimizer, params = optimizer_of(backend, values(), momentum=0.9)
        for p, grad in zip(params, values(), strict=True):
            p.grad = grad * 3
        params[-1].grad = (numbers(700, 8, seed=5) * 3).t()  # another layout than the parameter's
        optimizer.step()
        return optimizer

    ours, theirs = step(backend), step("reference")
    assert_same_bits(ours.grad_norm, theirs.grad_norm)
    assert_same_state(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_neither_threads_nor_repetition_change_a_bit(backend, dtype, threads):
    norms = []
    for count in (1, 2, 5, 2):
        threads(count)
        optimizer, params = optimizer_of(backend, values_of([300_001, 70, 9000, 50_000], dtype))
        give(params, 1)
        optimizer.step()
        norms.append(optimizer.grad_norm.item())
    assert len(set(norms)) == 1


@st.composite
def runs(draw):
    return {
        "groups": draw(
            st.lists(
                st.tuples(
                    st.sampled_from(sorted(HYPER)),
                    st.lists(st.integers(0, 300), min_size=1, max_size=3),
                ),
                min_size=1,
                max_size=3,
            )
        ),
        "dtype": draw(st.sampled_from(DTYPES)),
        "bounds": draw(st.lists(st.sampled_from([0.0, 1e-3, 1.0, 40.0, math.inf]), min_size=5)),
        "scale": draw(st.sampled_from([None, 1024.0, 3.0, 0.7])),
        "missing": draw(st.integers(2, 5)),
    }


def test_given_the_coefficient_all_is_torchs(backend):
    examples = 12 if backend == "triton" else 80  # its interpreter takes a tenth of a second a step
    settings(randomly, max_examples=examples)(given(run=runs())(assert_all_is_torchs))(backend)


def assert_all_is_torchs(backend, run):
    """Do torch's operations one by one: unscale, multiply by the coefficient, then the for-loop."""
    dtype, scale = run["dtype"], run["scale"]

    def groups():
        return [
            {
                "params": [leaf(numbers(n, dtype=dtype, seed=n + 7 * i)) for n in sizes],
                **with_lr(HYPER[name]),
            }
            for i, (name, sizes) in enumerate(run["groups"])
        ]

    ours, other = FusedDecaySGD(groups(), max_grad_norm=1, backend=backend), groups()
    theirs = sgd(other) if dtype in TORCH_IS_ORACLE else FusedDecaySGD(other, backend="reference")
    for step, bound in enumerate(run["bounds"][:5]):
        ours.max_grad_norm = bound
        pairs = [
            (p, q)
            for a, b in zip(ours.param_groups, theirs.param_groups, strict=True)
            for p, q in zip(a["params"], b["params"], strict=True)
        ]
        for i, (p, q) in enumerate(pairs):
            grad = numbers(*p.shape, dtype=dtype, seed=31 * step + i) * (scale or 1)
            p.grad, q.grad = grad.clone(), grad.clone()
            if (step + i) % run["missing"] == 0:
                p.grad = q.grad = None
        given = [p.grad.clone() for p, _ in pairs if p.grad is not None]
        ours.grad_scale = None if scale is None else torch.tensor(scale)
        ours.step()
        grads = [q.grad for _, q in pairs if q.grad is not None]
        inverse = 1.0 if scale is None else (1 / torch.tensor(scale).double()).float().item()
        coefficient = clip_coefficient(ours.grad_norm.item(), bound)
        for factor in (inverse, coefficient):
            for grad in grads:
                if dtype in TORCH_IS_ORACLE:
                    grad.mul_(factor)
                else:
                    grad.copy_(grad.float().mul_(factor))
        want = math.sqrt(sum(x * x for g in grads for x in g.double().tolist()))
        assert want <= bound * (1 + 2.0**-8) + 1e-30 or coefficient == 1
        theirs.step()
        assert_same_state(ours, theirs, f"step {step},")
        for p, grad in zip((p for p, _ in pairs if p.grad is not None), given, strict=True):
            assert_same_bits(p.grad, grad, "a gradient stays as the user left it")


@pytest.mark.parametrize("sizes", [(7, 33, 1025), (65537, 64, 1)], ids=str)
@pytest.mark.parametrize("bound", [0.1, 1e4])
def test_the_distance_from_clip_grad_norm_is_torchs_own_error(backend, sizes, bound):
    """Torch sums n squares in fp32: a relative error of up to n roundings, half of it in the norm.

    Ours is exact to some 2**-48. So the norms differ by at most (n + tensors) / 2 roundings and the
    few of the roots; the coefficients by two more, and gradients, once multiplied, by one more.
    """
    ours, mine = optimizer_of(backend, values_of(sizes), max_grad_norm=bound)
    other = [leaf(value) for value in values_of(sizes)]
    theirs = sgd(other, lr=0.1)
    give(mine, 1)
    give(other, 1)
    ours.step()
    norm = clip_grad_norm_(other, bound)
    theirs.step()
    error = ((sum(sizes) + len(sizes)) / 2 + 3) * EPS
    assert abs(ours.grad_norm.item() - norm.item()) <= error * norm.item()
    if bound == 1e4:
        assert_same_state(ours, theirs)  # nothing is clipped: no difference at all
    for p, q in zip(mine, other, strict=True):
        reach = 0.1 * q.grad.double().abs() * (error + 4 * EPS) + 2 * EPS * q.double().abs()
        assert ((p.double() - q.double()).abs() <= reach).all()


def test_a_norm_within_the_bound_changes_no_bit(backend):
    ours, mine = optimizer_of(backend, values_of([33, 1025]), max_grad_norm=1e4, momentum=0.9)
    theirs, other = optimizer_of(backend, values_of([33, 1025]), max_grad_norm=None, momentum=0.9)
    for step in range(3):
        give(mine, step)
        give(other, step)
        ours.step()
        theirs.step()
    assert_same_state(ours, theirs)
    assert theirs.grad_norm.isnan()


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_gradient_that_is_not_finite_spreads_as_in_torch(backend, bad):
    ours, mine = optimizer_of(backend, values_of([33, 70]))
    other = [leaf(value) for value in values_of([33, 70])]
    theirs = sgd(other, lr=0.1)
    for params in (mine, other):
        give(params, 1)
        params[0].grad[3] = bad
    ours.step()
    norm = clip_grad_norm_(other, 0.5)
    theirs.step()
    assert_same_state(ours, theirs)
    assert repr(ours.grad_norm.item()) == repr(norm.item())


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("attribute", ["grad_scale", "found_inf"])
@pytest.mark.parametrize("odd", [False, True])
def test_under_a_scaler_a_norm_that_is_not_finite_skips_the_step(backend, attribute, bad, odd):
    optimizer, params = optimizer_of(
        backend, values_of([33, 70]), momentum=0.9, schedule=ExponentialLR(0.5)
    )
    give(params, 1)
    before = [p.detach().clone() for p in params]
    versions = [p._version for p in params]
    if odd:
        params[0].grad = params[0].grad.repeat_interleave(2)[::2]
    params[0].grad[3] = bad
    setattr(optimizer, attribute, torch.tensor(1024.0 if attribute == "grad_scale" else 0.0))
    optimizer.step()
    for p, then in zip(params, before, strict=True):
        assert_same_bits(p, then)
        assert momentum(optimizer, p) is None
    assert [p._version for p in params] == versions
    assert optimizer.scheduler.last_epoch == 1
    assert not optimizer.grad_norm.isfinite()


@pytest.mark.parametrize("amp", [None, "fused"])
def test_with_gradscaler_the_norm_is_of_unscaled_gradients(backend, amp):
    def train(scaled):
        params = [leaf(value) for value in values_of([33, 1025])]
        optimizer = FusedDecaySGD(
            params, lr=0.1, momentum=0.9, max_grad_norm=0.5, amp=amp, backend=backend
        )
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        norms = []
        for step in range(4):
            optimizer.zero_grad()
            loss = sum((p * numbers(*p.shape, seed=step)).sum() for p in params)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            norms.append(optimizer.grad_norm)
        return optimizer, norms

    (ours, norms), (theirs, want) = train(True), train(False)
    for got, norm in zip(norms, want, strict=True):
        assert_same_bits(got, norm)
    assert len({norm.item() for norm in norms}) == 4  # each its own tensor
    assert_same_state(ours, theirs)


def test_a_refused_step_changes_nothing(backend):
    optimizer, params = optimizer_of(backend, values_of([33, 70, 9]), momentum=0.9)
    give(params, 0)
    optimizer.step()
    give(params, 1)
    params[-1].grad = params[-1].grad.to_sparse()
    before, norm = snapshot(optimizer), optimizer.grad_norm.item()
    with pytest.raises((TypeError, RuntimeError), match="sparse"):
        optimizer.step()
    assert_unchanged(optimizer, before)
    assert optimizer.grad_norm.item() == norm


def test_a_dtensor_is_refused(backend):
    from torch.distributed.tensor import distribute_tensor, init_device_mesh

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        param = distribute_tensor(numbers(33), mesh).requires_grad_()
        param.grad = distribute_tensor(numbers(33, seed=1), mesh)
        before = param.full_tensor().clone()
        optimizer = FusedDecaySGD([param], lr=0.1, max_grad_norm=1.0, backend=backend)
        with pytest.raises(TypeError, match=r"(?s)DTensor.*clip_grad_norm_"):
            optimizer.step()
        assert_same_bits(param.full_tensor(), before)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("value", [-1.0, math.nan, -math.inf])
def test_no_negative_norm(backend, value):
    with pytest.raises(ValueError, match="max_grad_norm"):
        optimizer_of(backend, values_of([3]), max_grad_norm=value)
    optimizer, _ = optimizer_of(backend, values_of([3]))
    with pytest.raises(ValueError, match="max_grad_norm"):
        optimizer.max_grad_norm = value
    assert optimizer.max_grad_norm == 0.5


def test_no_text_for_a_norm():
    with pytest.raises(TypeError, match="max_grad_norm"):
        FusedDecaySGD([leaf(numbers(3))], max_grad_norm="1")
