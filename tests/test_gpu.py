"""The backends on a GPU: no host waits, captured steps, nothing compiled twice."""

import copy
import math
import pickle
import subprocess
import sys

import pytest
import torch
from cases import DTYPES, HYPER
from support.bits import assert_same_bits, assert_same_rates
from support.gpu import MARKS, capture, pair
from support.twin import Twin, assert_same_state, leaf, numbers, rates

import lrfused
from lrfused import FusedDecaySGD, backends

pytestmark = MARKS


def test_the_fastest_backend_is_chosen_for_parameters_on_a_gpu(kernels):
    opt = FusedDecaySGD([leaf(numbers(3))], lr=0.1)
    there = [name for name in ("cuda", "triton") if backends.available()[name] is None]
    assert opt.backend == there[0]


def test_a_hundred_steps_with_a_plateau_wait_for_nothing(kernels, no_sync):
    schedule = [lrfused.ExponentialLR(0.99), lrfused.ReduceLROnPlateau(patience=1, factor=0.7)]
    ours, theirs = pair(kernels, schedule=schedule)
    exponential = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.99)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, patience=1, factor=0.7)
    metrics = torch.rand(100, generator=torch.Generator().manual_seed(1))
    on_the_gpu = metrics.cuda()
    ours.step()
    ours.scheduler.step(on_the_gpu[0])
    torch.cuda.synchronize()
    no_sync()
    for metric in on_the_gpu[1:]:
        ours.step()
        ours.scheduler.step(metric)
    torch.cuda.set_sync_debug_mode("default")
    for metric in metrics:
        theirs.step()
        exponential.step()
        plateau.step(metric)
    assert_same_rates(ours.scheduler.get_last_lr(), rates(theirs))
    assert_same_state(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_captured_step_replayed_a_hundred_times_equals_torch(kernels, dtype):
    ours, theirs = pair(
        kernels, dtype=dtype, schedule=lrfused.CosineAnnealingLR(30, 1e-3), capturable=True
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 30, 1e-3)

    def step_theirs():
        theirs.step()
        scheduler.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            ours.step()
    torch.cuda.current_stream().wait_stream(side)
    for _ in range(3):
        step_theirs()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ours.step()
    mine, other = (o.param_groups[0]["params"] for o in (ours, theirs))
    for replay in range(100):
        for i, (p, q) in enumerate(zip(mine, other, strict=True)):
            p.grad.copy_(numbers(*p.shape, dtype=dtype, seed=replay * 10 + i))
            q.grad.copy_(p.grad)
        graph.replay()
        step_theirs()
        for p, q in zip(mine, other, strict=True):
            assert_same_bits(p, q, f"replay {replay}")
    assert_same_rates(ours.scheduler.get_last_lr(), rates(theirs))
    assert ours.scheduler.last_epoch == 103
    assert_same_state(ours, theirs)


def test_a_capture_without_a_warm_up_is_refused(kernels):
    ours, _ = pair(kernels)
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="cannot be captured"), torch.cuda.graph(graph):
        ours.step()


def test_changed_numbers_compile_nothing(kernels, monkeypatch):
    ours, theirs = pair(kernels, schedule=lrfused.StepLR(3, 0.5))
    scheduler = torch.optim.lr_scheduler.StepLR(theirs, 3, 0.5)
    for _ in range(3):
        ours.step()
        theirs.step()
        scheduler.step()

    def refuse(*args, **kwargs):
        raise AssertionError("a kernel was compiled")

    if kernels == "triton":  # those of the other were compiled when it was built
        monkeypatch.setattr("triton.compiler.compile", refuse)
        monkeypatch.setattr("triton.runtime.jit.JITFunction._do_compile", refuse)
    for change in ({"lr": 0.01}, {"momentum": 0.5}, {"weight_decay": 0.0}, {"maximize": True}, {}):
        for optimizer in (ours, theirs):
            optimizer.param_groups[0].update(change)
        for _ in range(5):
            ours.step()
            theirs.step()
            scheduler.step()
    assert_same_state(ours, theirs)


def test_more_than_2_to_the_31_elements(kernels):
    numel = 2**31 + 1025
    if torch.cuda.mem_get_info()[0] < 6 * numel * 2:
        pytest.skip("less than 26 GB of device memory are free")
    param = torch.ones(numel, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    param.grad = torch.full_like(param, 0.5)
    FusedDecaySGD([param], lr=0.5, momentum=0.9, backend=kernels).step()
    assert bool((param.detach() == 0.75).all())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="this needs two CUDA devices")
def test_parameters_on_two_devices(kernels):
    ours, theirs = pair(kernels, schedule=lrfused.ExponentialLR(0.9))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.9)
    for optimizer in (ours, theirs):
        p = numbers(1025, seed=9).to("cuda:1").requires_grad_()
        p.grad = torch.full_like(p, 0.3)
        optimizer.param_groups[0]["params"].append(p)
    for _ in range(4):
        ours.step()
        theirs.step()
        scheduler.step()
    assert_same_state(ours, theirs)


def test_a_side_stream_is_obeyed(kernels):
    twin = Twin([numbers(100_003)], kernels, HYPER["momentum-decay"])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        twin.run(5)


# -- the CUDA backend's own ----------------------------------------------------------------------


def test_the_first_step_may_be_a_captured_one(cuda):
    ours, theirs = pair(cuda, schedule=lrfused.ExponentialLR(0.9), capturable=True)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.9)
    graph = capture(ours.step)
    for _ in range(5):
        graph.replay()
        theirs.step()
        scheduler.step()
    assert_same_rates(ours.scheduler.get_last_lr(), rates(theirs))
    assert_same_state(ours, theirs)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copys_first_step_may_be_a_captured_one(cuda, make):
    ours, theirs = pair(cuda, schedule=lrfused.ExponentialLR(0.9), capturable=True)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.9)
    grads = [p.grad for p in ours.param_groups[0]["params"]]
    ours = make(ours)
    for p, grad in zip(ours.param_groups[0]["params"], grads, strict=True):
        p.grad = grad
    graph = capture(ours.step)
    for _ in range(3):
        graph.replay()
        theirs.step()
        scheduler.step()
    assert_same_rates(ours.scheduler.get_last_lr(), rates(theirs))
    assert_same_state(ours, theirs)


FIRST_THING = """
import torch, lrfused
mine, other = (torch.arange(1.0, 1026.0, device="cuda").requires_grad_() for _ in "ab")
mine.grad, other.grad = torch.full_like(mine, 0.3), torch.full_like(other, 0.3)
schedule = [lrfused.ExponentialLR(0.9), lrfused.ReduceLROnPlateau(patience=0, factor=0.5)]
ours = lrfused.FusedDecaySGD(
    [mine], lr=0.1, momentum=0.9, schedule=schedule, capturable=True, backend="cuda",
    max_grad_norm=1e30,
)
loss = torch.ones((), device="cuda")
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    ours.step()
    ours.scheduler.step(loss)
theirs = torch.optim.SGD([other], lr=0.1, momentum=0.9, foreach=False)
exponential = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.9)
plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, patience=0, factor=0.5)
for _ in range(3):
    graph.replay()
    theirs.step()
    exponential.step()
    plateau.step(1.0)
assert torch.equal(mine.view(torch.int32), other.view(torch.int32))
assert ours.scheduler.get_last_lr() == [theirs.param_groups[0]["lr"]]
"""


def test_a_capture_may_be_the_first_thing_that_a_process_launches(cuda):
    done = subprocess.run([sys.executable, "-c", FIRST_THING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def test_a_metric_is_fed_inside_a_captured_step(cuda):
    schedule = [lrfused.ReduceLROnPlateau(patience=1, factor=0.5), lrfused.ExponentialLR(0.99)]
    ours, theirs = pair(cuda, schedule=schedule, capturable=True)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, patience=1, factor=0.5)
    exponential = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.99)
    loss = torch.zeros((), device="cuda")

    def train():
        ours.step()
        ours.scheduler.step(loss)

    graph = capture(train)
    for metric in [1.0, 0.5, 0.6, 0.6, 0.7, math.nan, 0.3, 0.4, 0.4, 0.4] * 2:
        loss.fill_(metric)
        graph.replay()
        theirs.step()
        exponential.step()
        plateau.step(torch.tensor(metric))
    assert_same_rates(ours.scheduler.get_last_lr(), rates(theirs))
    assert ours.scheduler.state_dict()["_schedulers"][0]["last_epoch"] == plateau.last_epoch
    assert_same_state(ours, theirs)


@pytest.mark.parametrize("count", [900, 10_000])
def test_tables_of_any_length_in_and_out_of_a_capture(cuda, count):
    twin = Twin([numbers(1 + i % 7, seed=i % 50) for i in range(count)], cuda, {"momentum": 0.9})
    twin.run(2)
    twin.give(twin.draw())
    graph = capture(twin.opt.step)
    for _ in range(3):
        graph.replay()
        twin.oracle.step()
    twin.check()


def test_streams_at_any_address(cuda):
    for dtype in DTYPES:
        values = [numbers(4000, dtype=dtype)[at:] for at in range(16 // dtype.itemsize)]
        twin = Twin(values, cuda, HYPER["nesterov-decay"])
        for step in range(3):
            draw = numbers(4020, dtype=dtype, seed=step)
            twin.step([draw[(3 * i + step) % 20 :][: len(p)] for i, p in enumerate(twin.mine)])
