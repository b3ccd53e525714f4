"""GradScaler, clipping and masters on a GPU, where no host waits for them."""

import math

import pytest
import torch
from cases import DTYPES, HYPER
from support.bits import assert_same_bits, assert_same_rates
from support.gpu import MARKS, capture
from support.masters import Masters, of_each_kind, values_of
from support.twin import assert_same_state, leaf, numbers, rates, sgd

import lrfused
from lrfused import FusedDecaySGD

pytestmark = MARKS


def test_gradscaler_is_not_waited_for(kernels, no_sync):
    hyper = HYPER["nesterov-decay"]
    mine, other = leaf(numbers(1025)), leaf(numbers(1025))
    ours = FusedDecaySGD([mine], lr=0.1, amp="fused", backend=kernels, **hyper)
    theirs = sgd([other], lr=0.1, **hyper)
    for step, found in enumerate([0.0, 0.0, 1.0, math.nan, 0.0]):
        grad = numbers(1025, seed=step)
        mine.grad, other.grad = grad * 4, grad.clone()
        ours.grad_scale = torch.tensor(4.0, device="cuda")
        ours.found_inf = torch.tensor(found, device="cuda")
        torch.cuda.synchronize()
        if step:  # in the first a buffer is made, or not
            no_sync()
        ours.step()
        torch.cuda.set_sync_debug_mode("default")
        if found == 0:
            theirs.step()
        assert_same_state(ours, theirs, f"step {step}")


@of_each_kind
def test_masters_equal_fp32_on_the_master_and_one_rounding(kernels, dtype, kind):
    sizes = (1, 33, 1025, 100_003)
    pair = Masters(values_of(sizes, dtype), kind, kernels, HYPER["nesterov-decay"])
    for step in range(4):
        pair.step(step, wide=step == 2)


def clipping_pair(kernels, dtype, **kwargs):
    """Make an optimizer that clips, with masters, and the compiled one on the CPU."""
    made = []
    for device, backend in (("cuda", kernels), ("cpu", "auto")):
        params = [leaf(v).to(device).detach().requires_grad_() for v in values_of(CLIPPED, dtype)]
        made.append(
            FusedDecaySGD(
                params, lr=0.1, max_grad_norm=0.5, amp="fused", backend=backend,
                schedule=lrfused.ExponentialLR(0.9), **HYPER["momentum-decay"], **kwargs,
            )
        )  # fmt: skip
    return made


CLIPPED = (1, 33, 4097, 600_001)


def give(optimizers, step, scale, found):
    for optimizer in optimizers:
        for i, p in enumerate(optimizer.param_groups[0]["params"]):
            grad = numbers(*p.shape, dtype=p.dtype, seed=10 * step + i).to(p.device)
            p.grad = grad if p.grad is None else p.grad.copy_(grad)
        optimizer.grad_scale = torch.tensor(scale, device=p.device)
        optimizer.found_inf = torch.tensor(found, device=p.device)


def assert_clipped_alike(ours, theirs, when):
    assert_same_bits(ours.grad_norm.cpu(), theirs.grad_norm, f"{when}: norm")
    for p, q in zip(*(o.param_groups[0]["params"] for o in (ours, theirs)), strict=True):
        assert_same_bits(p.cpu(), q, when)
        for key, tensor in theirs.state[q].items():
            assert_same_bits(ours.state[p][key].cpu(), tensor, f"{when}: {key}")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_clipping_has_the_cpus_bits_and_waits_for_nothing(triton, no_sync, dtype):
    ours, theirs = clipping_pair(triton, dtype, master_weights=True)
    for step, found in enumerate([0.0, 0.0, 1.0, 0.0]):
        give((ours, theirs), step, 3.0, found)
        torch.cuda.synchronize()
        if step:  # in the first state is made, or not
            no_sync()
        ours.step()
        torch.cuda.set_sync_debug_mode("default")
        theirs.step()
        assert ours.grad_norm.is_cuda
        assert_clipped_alike(ours, theirs, f"step {step}")


def test_a_clipped_step_is_captured(triton):
    ours, theirs = clipping_pair(triton, torch.bfloat16, master_weights="remainder")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for step in range(3):
            give((ours, theirs), step, 3.0, 0.0)
            ours.step()
            theirs.step()
    torch.cuda.current_stream().wait_stream(side)
    scale, found = ours.grad_scale, ours.found_inf
    graph = capture(ours.step)
    for replay, inf in enumerate([0.0, 1.0, 0.0]):
        give((ours, theirs), 3 + replay, 2.0 + replay, inf)
        scale.fill_(2.0 + replay)
        found.fill_(inf)
        graph.replay()
        theirs.step()
        assert_clipped_alike(ours, theirs, f"replay {replay}")


def clipped(kernels, sizes=(1025, 33, 70_001), dtype=torch.float32, **kwargs):
    """Make an optimizer that clips, and the reference of the same, both on the GPU."""
    made = []
    for backend in (kernels, "reference"):
        params = [leaf(numbers(n, dtype=dtype, seed=n)) for n in sizes]
        for i, p in enumerate(params):
            p.grad = numbers(*p.shape, dtype=dtype, seed=i + 50)
        hyper = HYPER["nesterov-decay"]
        made.append(
            FusedDecaySGD(params, lr=0.1, max_grad_norm=0.5, backend=backend, **hyper, **kwargs)
        )
    return made


def redraw(optimizers, step):
    for optimizer in optimizers:
        for i, p in enumerate(optimizer.param_groups[0]["params"]):
            p.grad.copy_(numbers(*p.shape, dtype=p.grad.dtype, seed=10 * step + i))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_clipped_steps_equal_the_references(kernels, dtype):
    ours, theirs = clipped(kernels, sizes=[*range(1, 300, 7), 4095, 4096, 530_001], dtype=dtype)
    for step in range(4):
        redraw((ours, theirs), step)
        ours.step()
        theirs.step()
        assert_same_bits(ours.grad_norm, theirs.grad_norm, f"step {step}")
        assert_same_state(ours, theirs, f"step {step}")


@of_each_kind
def test_masters_at_any_address(cuda, dtype, kind):
    values = [numbers(4000, dtype=dtype)[at:] for at in range(8)]
    pair = Masters(values, kind, cuda, HYPER["nesterov-decay"])
    for step in range(3):
        pair.step(step, wide=step == 1)


def test_the_norm_is_the_same_from_run_to_run_and_the_cpus(cuda):
    grads = [numbers(n, seed=i) for i, n in enumerate([30_000_001, 5, 4097] + [100_003] * 40)]

    def norm(device, backend):
        params = [torch.zeros_like(g, device=device) for g in grads]
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.to(device)
        optimizer = FusedDecaySGD(params, lr=0.1, max_grad_norm=1.0, backend=backend)
        for _ in range(50 if backend == cuda else 1):
            optimizer.step()
            yield optimizer.grad_norm.item()

    assert len({*norm("cuda", cuda), *norm("cpu", "auto")}) == 1


def test_more_than_2_to_the_31_elements_have_a_norm(cuda):
    numel = 2**31 + 1025
    if torch.cuda.mem_get_info()[0] < 4 * numel * 2:
        pytest.skip("less than 18 GB of device memory are free")
    param = torch.ones(numel, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    param.grad = torch.full_like(param, 0.5)
    optimizer = FusedDecaySGD([param], lr=0.5, max_grad_norm=math.inf, backend=cuda)
    optimizer.step()
    assert optimizer.grad_norm.item() == math.sqrt(numel / 4)


def test_clipping_under_gradscaler_waits_for_nothing(cuda, no_sync):
    ours, theirs = clipped(cuda, amp="fused", schedule=lrfused.ExponentialLR(0.9))
    for step, bad in enumerate([0.0, 0.0, math.inf, math.nan, 0.0]):
        redraw((ours, theirs), step)
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["params"][1].grad[3] += bad
            optimizer.grad_scale = torch.tensor(4.0, device="cuda")
            optimizer.found_inf = torch.tensor(0.0, device="cuda")
        theirs.step()
        torch.cuda.synchronize()
        if step:  # in the first a buffer is made, or not
            no_sync()
        ours.step()
        torch.cuda.set_sync_debug_mode("default")
        assert_same_bits(ours.grad_norm, theirs.grad_norm, f"step {step}")
        assert_same_state(ours, theirs, f"step {step}")


@pytest.mark.parametrize("masters", [False, True, "remainder"])
def test_a_captured_step_clips_and_keeps_masters(cuda, masters):
    ours, theirs = clipped(
        cuda, dtype=torch.bfloat16, master_weights=masters, capturable=True,
        schedule=lrfused.CosineAnnealingLR(30, 1e-3),
    )  # fmt: skip
    graph = capture(ours.step)
    for replay in range(50):
        redraw((ours, theirs), replay)
        graph.replay()
        theirs.step()
        assert_same_bits(ours.grad_norm, theirs.grad_norm, f"replay {replay}")
    assert_same_rates(ours.scheduler.get_last_lr(), rates(theirs))
    assert_same_state(ours, theirs)
