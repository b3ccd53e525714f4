"""The self-test of kernels on a GPU: its time, a real capture, the current device."""

import time

import pytest
import torch
from support.gpu import MARKS, capture
from support.inside import forget_verdicts, prefer, verdicts
from support.twin import leaf, numbers

from lrfused import FusedDecaySGD, backends
from lrfused.backends import self_test, trust

pytestmark = MARKS


@pytest.fixture(autouse=True)
def untested(monkeypatch):
    """Forget all verdicts, as in a new process."""
    forget_verdicts(monkeypatch)


def passed(kernels, device):
    return trust.verdict(backends.choose(kernels), torch.device(device)).state == "passed"


def test_the_kernels_pass(kernels):
    opt = FusedDecaySGD([leaf(numbers(33))], lr=0.1, backend=kernels)
    assert list(verdicts()) == [(kernels, opt.param_groups[0]["params"][0].device)]
    assert passed(kernels, "cuda:0")


def test_it_takes_less_than_a_tenth_of_a_second_once_the_kernels_are_loaded(kernels):
    module, device = backends.choose(kernels), torch.device("cuda:0")
    assert self_test.run(module, device) == ""
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        self_test.run(module, device)
        took.append(time.perf_counter() - begin)
    assert min(took) < 0.1


def test_no_wait_is_one_that_torch_forbids(kernels, no_sync):
    no_sync()
    assert passed(kernels, "cuda:0")


def test_in_a_capture_it_is_refused_and_the_capture_goes_on(kernels):
    p = leaf(numbers(33))

    def train():
        with pytest.raises(RuntimeError, match="construct the optimizer before the capture"):
            FusedDecaySGD([p], lr=0.1, backend=kernels)
        p.detach().add_(1.0)

    graph = capture(train)
    before = p.detach().clone()
    graph.replay()
    assert torch.equal(p.detach(), before + 1.0)
    assert passed(kernels, "cuda:0")


def test_a_failed_launch_is_told_of_and_the_next_backend_is_used(kernels, monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(backends.choose(kernels), "step", broken)
    prefer(monkeypatch, kernels, "reference", device_type="cuda")
    with pytest.warns(UserWarning, match=f"the {kernels} backend on cuda:0 failed: RuntimeError"):
        opt = FusedDecaySGD([leaf(numbers(33))], lr=0.1)
    assert opt.backend == "reference"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="this needs two CUDA devices")
def test_each_device_has_its_own_verdict(kernels):
    params = [leaf(numbers(33)), numbers(33).to("cuda:1").requires_grad_()]
    FusedDecaySGD(params, lr=0.1, backend=kernels)
    assert torch.cuda.current_device() == 0
    assert {str(device) for _, device in verdicts()} == {"cuda:0", "cuda:1"}
    assert passed(kernels, "cuda:0")
    assert passed(kernels, "cuda:1")
