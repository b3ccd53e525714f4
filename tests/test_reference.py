"""The reference itself: against exact arithmetic, and against torch's for-loop."""

import itertools
import math

import pytest
import torch
from cases import DTYPES, HYPER, STEPPED, TORCH_IS_ORACLE, with_lr
from support.bits import assert_same_bits, assert_same_rates
from support.exact import element, rounded
from support.loops import epoch_of
from support.twin import assert_same_state, leaf, momentum, numbers, rates, sgd

import lrfused
from lrfused import FusedDecaySGD
from lrfused.reference import ReferenceDecaySGD

pytestmark = pytest.mark.backends(
    "host", reason="test_update.py compares the other backends with the reference"
)

fused_multiply_add = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="torch itself does not fuse with ATEN_CPU_CAPABILITY=default",
)


def awkward(dtype):
    """Make values that cause ties, carries, cancellation, subnormals and overflows."""
    info = torch.finfo(dtype)
    some = [0.0, -0.0, 1.0, -1.5, 1 + info.eps, -(1 - info.eps / 2), 3.7, 1e-3, info.max / 3]
    tiny = [info.smallest_normal, -info.smallest_normal * info.eps * 5, -info.smallest_normal * 1.5]
    return torch.tensor([*some, *tiny], dtype=torch.float64).to(dtype)


@fused_multiply_add
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", HYPER.values(), ids=HYPER)
def test_the_formula_in_exact_arithmetic(backend, hyper, dtype):
    table = awkward(dtype)
    pairs = torch.tensor(list(itertools.product(range(len(table)), repeat=2)))
    grads = [numbers(40, dtype=dtype, seed=9 + step) for step in range(3)]
    start = torch.cat([numbers(40, dtype=dtype), table[pairs[:, 0]]])
    param = leaf(start)
    kwargs = with_lr(hyper)
    optimizer = FusedDecaySGD([param], backend=backend, **kwargs)
    want_p, want_m = start.tolist(), [0.0] * start.numel()
    for step in range(3):
        param.grad = torch.cat([grads[step], table[(pairs[:, 1] + 5 * step) % len(table)]])
        optimizer.step()
        pairs_of = [
            element(p, g, m, dtype, first=step == 0, **kwargs)
            for p, g, m in zip(want_p, param.grad.tolist(), want_m, strict=True)
        ]
        want_p, want_m = [p for p, _ in pairs_of], [m for _, m in pairs_of]
        as_tensor = torch.tensor(want_p, dtype=torch.float64).to(dtype)
        assert_same_bits(param, as_tensor, f"step {step}, parameter")
        if kwargs.get("momentum"):
            as_tensor = torch.tensor(want_m, dtype=torch.float64).to(dtype)
            assert_same_bits(momentum(optimizer, param), as_tensor, f"step {step}, momentum")


def test_the_model_rounds_as_the_formats_do():
    for dtype in DTYPES:
        doubles = numbers(3000, dtype=torch.float64, seed=4)
        doubles = doubles * 2.0 ** torch.randint(-30, 20, doubles.shape)
        want = doubles.to(dtype).double().tolist()
        assert_same_rates([rounded(x, dtype) for x in doubles.tolist()], want, str(dtype))
    assert rounded(65520.0, torch.float16) == math.inf
    assert rounded(65519.9, torch.float16) == 65504.0
    assert rounded(2.0**-25, torch.float16) == 0.0
    assert rounded(2.0**-25 * 1.001, torch.float16) == 2.0**-24


@pytest.mark.parametrize("dtype", TORCH_IS_ORACLE, ids=str)
@pytest.mark.parametrize("hyper", HYPER.values(), ids=HYPER)
def test_the_reference_class_equals_torch(hyper, dtype):
    sizes = [0, 1, 7, 33, 1025]
    mine = [leaf(numbers(n, dtype=dtype, seed=n)) for n in sizes]
    other = [leaf(numbers(n, dtype=dtype, seed=n)) for n in sizes]
    ours, theirs = ReferenceDecaySGD(mine, **with_lr(hyper)), sgd(other, **with_lr(hyper))
    for step in range(4):
        for i, (p, q) in enumerate(zip(mine, other, strict=True)):
            p.grad = numbers(*p.shape, dtype=dtype, seed=step + 10 * i)
            q.grad = p.grad.clone()
        ours.step()
        theirs.step()
        assert_same_state(ours, theirs, f"after step {step + 1},")


@pytest.mark.parametrize("case", [c for c in STEPPED if c.groups is None], ids=str)
def test_the_schedule_of_the_reference_class_is_torchs(case):
    ours = ReferenceDecaySGD([leaf(numbers(3))], lr=0.1, schedule=case.ours())
    theirs = sgd([leaf(numbers(3))], lr=0.1)
    scheduler = case.torchs(theirs)
    for step in range(60):
        assert_same_rates(rates(ours), rates(theirs), f"before step {step}")
        ours.step()
        theirs.step()
        scheduler.step()
    assert ours.scheduler.get_last_lr() == scheduler.get_last_lr()
    assert epoch_of(scheduler) == 60


def test_the_reference_feeds_a_plateau_as_torch_does():
    kwargs = {"patience": 1, "factor": 0.5, "cooldown": 1}
    plateau = lrfused.ReduceLROnPlateau(**kwargs)
    ours = ReferenceDecaySGD([leaf(numbers(3))], lr=0.1, schedule=plateau)
    theirs = sgd([leaf(numbers(3))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **kwargs)
    for metric in (1.0, 0.9, 0.9, 0.95, 0.91, 0.99, 1.0, 0.5, 0.6, 0.6, 0.6):
        ours.scheduler.step(torch.tensor(metric))
        scheduler.step(torch.tensor(metric))
        assert_same_rates(rates(ours), rates(theirs), f"at {metric}")
    assert rates(ours)[0] < 0.1
