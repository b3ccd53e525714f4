"""The CUDA backend: what each lane touches, tables of any size, captured firsts and metrics."""

import itertools
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import DTYPES, HYPER, Schedule
from support.bits import assert_same_bits, assert_same_rates
from support.inside import program_of
from support.tape import assert_the_device_agrees, not_emulated
from support.twin import Twin, assert_same_state, leaf, numbers, rates, same_layout, sgd

import lrfused

if why := not_emulated("cuda"):
    pytest.skip(f"cuda: {why}", allow_module_level=True)

from lrfused import _C, FusedDecaySGD

HYPERS = {name: HYPER[name] for name in ("decay", "dampening", "nesterov-decay", "maximize-all")}
ITEM = 512  # vectors


@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_every_element_is_touched_once_and_nothing_outside(itemsize):
    width = 16 // itemsize
    # Around the sizes where heads, tails and items begin, at every alignment of the three streams.
    sizes = [*range(5 * width + 1), ITEM * width + width, 2 * ITEM * width + 1]
    for numel in sizes:
        residues = range(0, 16, itemsize) if numel < 100 else (0, itemsize, 16 - itemsize)
        for param, grad, buffer in itertools.product(residues, residues, (None, *residues)):
            at = 1 << 20
            addresses = at + param, 2 * at + grad, 0 if buffer is None else 3 * at + buffer
            elements, vectors = _C.touches_of((*addresses, 0), numel, (*[itemsize] * 4, width))
            where = f"{numel} elements at {addresses}"
            assert sorted(e for _, _, e in elements) == list(range(numel)), where
            assert all(lane < 32 for _, lane, _ in elements), where
            shift = None
            for _, _, first in vectors:
                assert (addresses[0] + first * itemsize) % 16 == 0, where
                assert buffer is None or (addresses[2] + first * itemsize) % 16 == 0, where
                shift = (addresses[1] + first * itemsize) % 16
                left = first * itemsize - shift
                right = left + (32 if shift else 16)
                assert 0 <= left < right <= numel * itemsize, where
            if buffer in (None, param) and numel >= 5 * width:
                assert vectors, f"{where}: no access of 16 bytes"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_streams_may_lie_at_any_address(dtype, hyper):
    width = 16 // dtype.itemsize
    values = [numbers(3 * width + 40, dtype=dtype)[at : at + 2 * width + 9] for at in range(width)]
    twin = Twin([same_layout(value) for value in values], "cuda", hyper)
    for step in range(3):
        grads = [
            numbers(4 * width + 40, dtype=dtype, seed=step)[(3 * at + step) % width :][: len(p)]
            for at, p in enumerate(twin.mine)
        ]
        twin.step(grads)


def test_a_momentum_buffer_may_lie_otherwise_than_its_parameter():
    for dtype in DTYPES:
        twin = Twin([numbers(3000, dtype=dtype)], "cuda", {"momentum": 0.9})
        twin.step()
        (p,) = twin.mine
        room = torch.empty(3001, dtype=dtype)
        twin.opt.state[p]["momentum_buffer"] = room[1:].copy_(twin.opt.state[p]["momentum_buffer"])
        twin.run(2)


@pytest.mark.parametrize("count", [899, 900, 2000])
def test_a_table_that_is_too_long_for_an_argument(count):
    twin = Twin([numbers(1 + i % 5, seed=i) for i in range(count)], "cuda", HYPER["momentum-decay"])
    twin.run(2)
    twin.step(twin.draw(missing=range(0, count, 3)))


def test_a_captured_step_takes_a_long_table_along_in_parts(tape):
    count = 2000
    twin = Twin([numbers(3, seed=i) for i in range(count)], "cuda", {"momentum": 0.9}, [])
    twin.run(2)
    twin.give(twin.draw())
    tape.capture(twin.opt.step)
    assert len(tape) == 3
    for _ in range(3):
        tape.replay()
        twin.oracle.step()
    twin.check()


@pytest.fixture
def old_driver(monkeypatch):
    """Stand in for a driver whose kernels take 4,096 bytes of arguments."""
    monkeypatch.setattr(_C, "driver_version", lambda: 12000)


@pytest.mark.parametrize(("count", "launches"), [(105, 1), (106, 2), (211, 3)])
def test_an_old_driver_takes_short_tables_in_more_launches(tape, old_driver, count, launches):
    twin = Twin([numbers(1 + i % 5, seed=i) for i in range(count)], "cuda", {"momentum": 0.9}, [])
    twin.run(2)
    twin.give(twin.draw())
    tape.capture(twin.opt.step)
    assert len(tape) == launches
    for _ in range(2):
        tape.replay()
        twin.oracle.step()
    twin.check()


def test_with_an_old_driver_more_groups_than_it_takes_are_not_captured(tape, old_driver):
    groups = [{"params": [leaf(numbers(2, seed=i))]} for i in range(120)]
    for group in groups:
        group["params"][0].grad = numbers(2)
    opt = FusedDecaySGD(groups, lr=0.1, backend="cuda")
    opt.step()
    with pytest.raises(RuntimeError, match="cannot be captured: it has too many groups, 120"):
        tape.capture(opt.step)


def test_more_groups_than_an_argument_holds():
    groups = [
        [{"params": [leaf(numbers(2, seed=i))], "lr": i / 7} for i in range(1020)] for _ in "ab"
    ]
    ours = FusedDecaySGD(groups[0], momentum=0.9, backend="cuda", schedule=lrfused.StepLR(1, 0.5))
    theirs = sgd(groups[1], momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(theirs, 1, 0.5)
    for _ in range(3):
        for optimizer in (ours, theirs):
            for i, group in enumerate(optimizer.param_groups):
                group["params"][0].grad = numbers(2, seed=i + 9)
            optimizer.step()
        scheduler.step()
    assert_same_state(ours, theirs)


def test_one_launch_for_all_dtypes_and_groups(tape):
    params = [leaf(numbers(n, dtype=d, seed=n)) for n in (3, 1025, 0, 70) for d in DTYPES]
    groups = [{"params": params[:7]}, {"params": params[7:], "lr": 0.3, "momentum": 0.0}]
    for p in params:
        p.grad = numbers(*p.shape, dtype=p.dtype)
    schedule = lrfused.ExponentialLR(0.9)
    opt = FusedDecaySGD(groups, lr=0.1, momentum=0.9, backend="cuda", schedule=schedule)
    opt.step()
    tape.capture(opt.step)
    assert len(tape) == 1
    tape.replay()
    assert opt.scheduler.get_last_lr() == [0.1 * 0.9 * 0.9, 0.3 * 0.9 * 0.9]
    assert opt.scheduler.last_epoch == 2


# -- captured firsts and metrics -----------------------------------------------------------------


@pytest.mark.parametrize("hyper", ["momentum-decay", "nesterov", "maximize-nesterov"])
def test_the_first_step_may_be_a_captured_one(tape, hyper):
    mine, other = leaf(numbers(1025)), leaf(numbers(1025))
    for p in (mine, other):
        p.grad = numbers(1025, seed=1)
        p.grad[:4] = torch.tensor([0.0, -0.0, math.nan, math.inf])
    schedule = lrfused.ExponentialLR(0.9)
    hypers = {"lr": 0.1, **HYPER[hyper]}
    opt = FusedDecaySGD([mine], **hypers, schedule=schedule, backend="cuda", capturable=True)
    oracle = sgd([other], **hypers)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(oracle, 0.9)
    tape.capture(opt.step)
    for _ in range(5):
        tape.replay()
        oracle.step()
        scheduler.step()
        assert_same_bits(mine, other)
    assert_same_rates(opt.scheduler.get_last_lr(), rates(oracle))
    assert_same_state(opt, oracle)


def test_a_first_step_with_dampening_is_not_captured(tape):
    p = leaf(numbers(3))
    p.grad = numbers(3)
    opt = FusedDecaySGD([p], momentum=0.9, dampening=0.1, backend="cuda", capturable=True)
    with pytest.raises(RuntimeError, match=r"cannot be captured.*momentum buffers.*dampening"):
        tape.capture(opt.step)
    assert not len(tape)


def test_a_metric_is_fed_inside_a_captured_step(tape):
    case = Schedule("plateau", "ReduceLROnPlateau", {"patience": 1, "factor": 0.5, "cooldown": 1})
    mine, other = leaf(numbers(33)), leaf(numbers(33))
    mine.grad, other.grad = numbers(33, seed=1), numbers(33, seed=1)
    schedule = [case.ours(), lrfused.ExponentialLR(0.99)]
    opt = FusedDecaySGD([mine], lr=0.1, schedule=schedule, backend="cuda", capturable=True)
    oracle = sgd([other], lr=0.1)
    plateau = case.torchs(oracle)
    exponential = torch.optim.lr_scheduler.ExponentialLR(oracle, 0.99)
    loss = torch.zeros(1, dtype=torch.float64)

    def train():
        opt.step()
        opt.scheduler.step(loss)

    tape.capture(train)
    assert len(tape) == 2
    for replay, metric in enumerate([1.0, 0.5, 0.6, 0.6, 0.7, math.nan, 0.3, 0.4, 0.4, 0.4] * 2):
        loss.fill_(metric)
        tape.replay()
        oracle.step()
        exponential.step()
        plateau.step(metric)
        assert_same_bits(mine, other, f"replay {replay}")
        if replay % 6 == 5:
            assert_same_rates(opt.scheduler.get_last_lr(), rates(oracle))
    states = opt.scheduler.state_dict()["_schedulers"]
    assert states[0]["num_bad_epochs"] == plateau.num_bad_epochs
    assert states[0]["last_epoch"] == plateau.last_epoch == 20
    assert opt.scheduler.last_epoch == 20
    opt.scheduler.step(torch.tensor(0.2))  # by hand
    plateau.step(0.2)
    assert opt.scheduler.state_dict()["_schedulers"][0]["last_epoch"] == plateau.last_epoch
    assert_same_state(opt, oracle)
    assert_the_device_agrees(program_of(opt))


# -- GradScaler ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_scale_on_the_device_is_read_there(dtype):
    twin = Twin([numbers(1025, dtype=dtype)], "cuda", HYPER["nesterov-decay"])
    twin.opt = FusedDecaySGD(
        twin.mine, lr=0.1, **HYPER["nesterov-decay"], amp="fused", backend="cuda",
        schedule=lrfused.ExponentialLR(0.9),
    )  # fmt: skip
    twin.schedulers = [torch.optim.lr_scheduler.ExponentialLR(twin.oracle, 0.9)]
    inverse = torch.tensor(3.0).double().reciprocal().float()
    for found in (0.0, 1.0, 0.0, math.nan, 0.0):
        scaled = twin.draw()
        twin.give(scaled)
        for q in twin.other:  # in fp32, rounded once
            q.grad = (q.grad * inverse.to(torch.promote_types(dtype, torch.float32))).to(dtype)
        twin.opt.grad_scale, twin.opt.found_inf = torch.tensor(3.0), torch.tensor(found)
        twin.opt.step()
        if found == 0:
            twin.oracle.step()
        for scheduler in twin.schedulers:
            scheduler.step()
        twin.check()
        assert_the_device_agrees(program_of(twin.opt))


WITHOUT_TRITON = """
import sys, pytest
sys.modules["triton"] = None
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_in_a_subprocess_these_tests_need_no_triton():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRITON, "-p", "no:cacheprovider", "-k", "cuda"]
        + ["test_cuda.py::test_streams_may_lie_at_any_address", "test_device_flight.py"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"\b[1-9]\d* passed", done.stdout), done.stdout
    assert "skipped" not in done.stdout, done.stdout
