"""master_weights: fp32 SGD on the masters, then one rounding into the parameters, bit for bit."""

import copy

import pytest
import torch
from cases import HYPER, SIZES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bits import assert_same_bits
from support.masters import KINDS, Masters, master, of_each_kind, values_of
from support.twin import (
    allow_gradient,
    assert_same_state,
    assert_unchanged,
    leaf,
    numbers,
    other_dtypes,
    snapshot,
)

from lrfused import ExponentialLR, FusedDecaySGD
from lrfused.arithmetic.masters import join, split
from lrfused.arithmetic.norm import clip_coefficient
from lrfused.reference import ReferenceDecaySGD

pytestmark = pytest.mark.backends(
    "host", "emulated", reason="test_gpu_scaling.py runs the like of these on a GPU"
)

randomly = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("hyper", HYPER.values(), ids=HYPER)
@of_each_kind
def test_every_size_equals_fp32_on_the_master_and_one_rounding(backend, dtype, kind, hyper):
    pair = Masters(values_of(SIZES, dtype), kind, backend, hyper)
    for step in range(3):
        pair.step(step)


@pytest.mark.parametrize("hyper", ["plain", "maximize-nesterov-decay"])
@of_each_kind
def test_gradients_may_be_fp32(backend, dtype, kind, hyper):
    pair = Masters(values_of([1, 33, 1025, 2049], dtype), kind, backend, HYPER[hyper])
    for step in range(4):
        pair.step(step, wide=step != 1)


@of_each_kind
def test_late_gradients_and_momentum_switched_on_later(backend, dtype, kind):
    pair = Masters(values_of([5, 70, 1025], dtype), kind, backend, {"weight_decay": 0.01})
    for step in range(6):
        if step == 3:
            for optimizer in (pair.ours, pair.theirs):
                optimizer.param_groups[0]["momentum"] = 0.9
        pair.step(step, missing=[1] if step < 4 else [step % 3])


@of_each_kind
def test_odd_layouts(backend, dtype, kind):
    values = [
        numbers(9, 5, 7, 3, dtype=dtype).to(memory_format=torch.channels_last),
        numbers(65, 66, dtype=dtype, seed=1).t(),
        numbers(130, 9, dtype=dtype, seed=2)[:, ::2],
        numbers(33, dtype=dtype, seed=3)[1:],
    ]
    pair = Masters(values, kind, backend, HYPER["nesterov-decay"])
    for step in range(3):
        pair.step(step)


@st.composite
def runs(draw):
    dtype, kind = draw(st.sampled_from(KINDS))
    sizes = st.lists(st.integers(0, 70) | st.sampled_from([1023, 1025, 4097]), max_size=3)
    return {
        "dtype": dtype,
        "kind": kind,
        "sizes": draw(sizes.filter(len)),
        "hyper": HYPER[draw(st.sampled_from(sorted(HYPER)))],
        "scale": draw(st.sampled_from([None, 1024.0, 3.0, 0.7])),
        "bound": draw(st.sampled_from([None, 1e-3, 1.0, 1e4])),
        "skips": draw(st.sets(st.integers(0, 5))),
        "wide": draw(st.sets(st.integers(0, 5))),
        "missing": draw(st.integers(2, 5)),
        "saves": draw(st.sets(st.integers(0, 5))),
    }


def test_any_run_equals_unscaling_clipping_and_stepping_in_fp32(backend):
    examples = 12 if backend == "triton" else 80  # its interpreter takes a tenth of a second a step
    settings(randomly, max_examples=examples)(given(run=runs())(assert_equals_fp32))(backend)


def assert_equals_fp32(backend, run):
    values = values_of(run["sizes"], run["dtype"])
    pair = Masters(values, run["kind"], backend, run["hyper"], max_grad_norm=run["bound"])
    for step in range(6):
        for i, (p, q) in enumerate(zip(pair.mine, pair.other, strict=True)):
            p.grad = q.grad = None
            if (step + i) % run["missing"]:
                dtype = allow_gradient(p, torch.float32 if step in run["wide"] else p.dtype)
                p.grad = numbers(*p.shape, dtype=dtype, seed=31 * step + i)
                q.grad = p.grad.float()
        pair.ours.grad_scale = scale = run["scale"] and torch.tensor(run["scale"])
        pair.ours.found_inf = torch.tensor(float(step in run["skips"]))
        pair.ours.step()
        if step not in run["skips"]:
            inverse = 1.0 if scale is None else scale.double().reciprocal().float().item()
            factors = [inverse]
            if run["bound"] is not None:
                factors.append(clip_coefficient(pair.ours.grad_norm.item(), run["bound"]))
            for q in pair.other:
                for factor in factors:
                    q.grad = None if q.grad is None else q.grad.mul_(factor)
            pair.theirs.step()
        pair.check(f"step {step}")
        if step in run["saves"]:
            pair.ours.load_state_dict(copy.deepcopy(pair.ours.state_dict()))


@of_each_kind
def test_the_backends_agree_on_clipped_steps(backend, dtype, kind):
    def run(backend):
        params = [leaf(v) for v in values_of([33, 70_001, 9000], dtype)]
        optimizer = FusedDecaySGD(
            params, lr=0.1, momentum=0.9, max_grad_norm=0.5, master_weights=kind, backend=backend
        )
        for step in range(2):
            for i, p in enumerate(params):
                given = allow_gradient(p, torch.float32 if step else dtype)
                p.grad = numbers(*p.shape, dtype=given, seed=step + i)
            optimizer.grad_scale = 3.0
            optimizer.step()
        return optimizer

    ours, theirs = run(backend), run("reference")
    assert_same_bits(ours.grad_norm, theirs.grad_norm)
    assert_same_state(ours, theirs)


@of_each_kind
def test_the_definition_does_all_of_it_too(backend, dtype, kind):
    def run(make, **kwargs):
        params = [leaf(v) for v in values_of([33, 70, 9000], dtype)]
        optimizer = make(
            params, schedule=ExponentialLR(0.5), amp="fused", advance="on_update",
            max_grad_norm=0.5, master_weights=kind, **HYPER["maximize-all"], **kwargs,
        )  # fmt: skip
        for step in range(4):
            for i, p in enumerate(params):
                p.grad = numbers(*p.shape, dtype=dtype, seed=step + i)
            optimizer.grad_scale = 3.0
            optimizer.found_inf = float(step == 1)
            optimizer.step()
        return optimizer

    ours, theirs = run(FusedDecaySGD, backend=backend), run(ReferenceDecaySGD)
    assert_same_state(ours, theirs)
    assert theirs.param_groups[0]["lr"] == 1e-3 * 0.5**3
    assert theirs._step_supports_amp_scaling


def test_parameters_of_32_and_64_bits_are_their_own_masters(backend):
    def params():
        return [leaf(numbers(33, dtype=d)) for d in (torch.float32, torch.bfloat16, torch.float64)]

    mine, other = params(), params()
    ours = FusedDecaySGD(mine, lr=0.1, momentum=0.9, master_weights=True, backend=backend)
    theirs = FusedDecaySGD(other, lr=0.1, momentum=0.9, backend=backend)
    for group in (mine, other):
        for p in group:
            p.grad = numbers(33, dtype=p.dtype, seed=1)
    ours.step()
    theirs.step()
    for i in (0, 2):
        assert_same_bits(mine[i], other[i])
        assert list(ours.state[mine[i]]) == ["momentum_buffer"]
    assert list(ours.state[mine[1]]) == ["momentum_buffer", "master"]
    assert ours.state[mine[1]]["momentum_buffer"].dtype == torch.float32


# -- the 16 bits of a remainder ------------------------------------------------------------------


def bits(*patterns):
    as_signed = [x - (1 << 32) if x >= 1 << 31 else x for x in patterns]
    return torch.tensor(as_signed, dtype=torch.int32).view(torch.float32)


def masters_of_all_kinds():
    """Every upper half beside lower halves about the ends and the middle, and random ones."""
    high = torch.arange(1 << 16, dtype=torch.int64) << 16
    low = torch.tensor([0, 1, 2, 0x7FFE, 0x7FFF, 0x8000, 0x8001, 0xFFFE, 0xFFFF, 0x1234, 0xABCD])
    all_bits = (high[:, None] + low).flatten()
    return (
        torch.where(all_bits >= 1 << 31, all_bits - (1 << 32), all_bits).int().view(torch.float32)
    )


def test_a_master_is_its_rounding_and_its_remainder():
    wide = masters_of_all_kinds()
    param, remainder = split(wide)
    assert (param.dtype, remainder.dtype) == (torch.bfloat16, torch.int16)
    assert_same_bits(join(param, remainder), wide)
    assert torch.equal(param.isnan(), wide.isnan())


def test_the_rounding_is_to_nearest_and_differs_from_torchs_in_ties_alone():
    wide = masters_of_all_kinds()
    wide = wide[wide.isfinite()]
    param, _ = split(wide)
    tie = (wide.view(torch.int32) & 0xFFFF) == 0x8000
    assert_same_bits(param[~tie], wide[~tie].bfloat16())
    up = (wide[tie].view(torch.int32) + 0x8000).view(torch.float32)
    assert_same_bits(param[tie].float(), up)  # away from zero


def test_a_remainder_goes_through_the_step_unharmed(backend):
    wide = masters_of_all_kinds()
    wide = wide[~wide.isnan()]
    param, remainder = split(wide)
    p = leaf(param)
    optimizer = FusedDecaySGD([p], lr=0.0, master_weights="remainder", backend=backend)
    optimizer.state[p]["master_remainder"] = remainder.clone()
    p.grad = torch.copysign(torch.ones_like(param), -param)  # keeps the sign of a zero
    optimizer.step()
    assert_same_bits(p, param)
    assert torch.equal(optimizer.state[p]["master_remainder"], remainder)


@other_dtypes
@of_each_kind
def test_nans_of_any_payload_stay_nans_and_overflow_is_infinite(backend, dtype, kind):
    p = leaf(torch.zeros(6, dtype=dtype))
    p.grad_dtype = torch.float32
    p.grad = -bits(0x7F800001, 0x7FFFFFFF, 0xFF80FFFF, 0x7FC00000, 0x7F7FFFFF, 0x7F800000)
    optimizer = FusedDecaySGD([p], lr=1.0, master_weights=kind, backend=backend)
    optimizer.step()
    assert p[:4].isnan().all()
    assert p[4:].tolist() == [torch.inf, torch.inf]
    assert master(optimizer, p)[:4].isnan().all()
    assert master(optimizer, p)[4:].tolist() == [torch.finfo(torch.float32).max, torch.inf]


# -- nothing by halves ---------------------------------------------------------------------------


@other_dtypes  # torch's own unscale_ refuses float16 gradients
@pytest.mark.parametrize("amp", [None, "fused"])
@of_each_kind
def test_a_skipped_first_step_commits_nothing(backend, dtype, kind, amp):
    p = leaf(numbers(70, dtype=dtype))
    optimizer = FusedDecaySGD(
        [p], lr=0.1, momentum=0.9, master_weights=kind, amp=amp, backend=backend
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(()))
    p.grad_dtype = torch.float32
    p.grad = torch.full((70,), torch.inf)
    version = p._version
    scaler.step(optimizer)
    assert not optimizer.state
    assert p._version == version


def test_a_remainder_of_float16_is_refused(backend):
    params = [leaf(numbers(9, dtype=d)) for d in (torch.bfloat16, torch.float16)]
    optimizer = FusedDecaySGD(params, lr=0.1, master_weights="remainder", backend=backend)
    for p in params:
        p.grad = p.detach().clone()
    before = snapshot(optimizer)
    with pytest.raises(TypeError, match=r"(?s)float16.*use True"):
        optimizer.step()
    assert_unchanged(optimizer, before)
    assert not optimizer.state


@pytest.mark.parametrize("value", [torch.ones(8), torch.ones(9).double(), 0.5], ids=str)
@of_each_kind
def test_a_master_that_is_none_is_refused(backend, dtype, kind, value):
    p = leaf(numbers(9, dtype=dtype))
    optimizer = FusedDecaySGD([p], lr=0.1, master_weights=kind, backend=backend)
    key = "master" if kind is True else "master_remainder"
    optimizer.state[p][key] = value
    p.grad = p.detach().clone()
    before = snapshot(optimizer)
    with pytest.raises(TypeError, match=key):
        optimizer.step()
    assert_unchanged(optimizer, before)


@pytest.mark.parametrize("value", ["whole", "master", 1, None, 16], ids=str)
def test_other_arguments_are_refused(value):
    with pytest.raises(ValueError, match="master_weights must be"):
        FusedDecaySGD([leaf(numbers(3))], master_weights=value)


def test_the_version_moves_with_every_update(backend):
    p = leaf(numbers(33, dtype=torch.bfloat16))
    optimizer = FusedDecaySGD([p], lr=0.1, master_weights=True, backend=backend)
    for _ in range(2):
        p.grad = torch.ones_like(p)
        version = p._version
        optimizer.step()
        assert p._version > version
