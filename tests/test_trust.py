"""The self-test runs once for a process and a device."""

import multiprocessing
import os
import threading

import pytest
import torch
from support.inside import lock_of_trust
from support.self_tests import (
    CPU,
    optimizer,
    plant_in_step,
    pretend_backend,
    wrong_rounding,
)
from support.twin import numbers

from lrfused import backends
from lrfused.backends import trust
from lrfused.backends.device import transfer

pytestmark = pytest.mark.usefixtures("untested")


def test_it_runs_once_per_process_and_not_in_a_step(host_kernels, self_tests, monkeypatch):
    opt = optimizer()
    optimizer()
    assert len(self_tests) == 1
    monkeypatch.setattr(backends, "trusted", None)
    opt.param_groups[0]["params"][0].grad = numbers(33)
    opt.step()


@pytest.fixture
def refusing(monkeypatch):
    """Return a function after which no backend is trusted."""

    def refuse(name, devices):
        raise RuntimeError("the self-test failed")

    return lambda: monkeypatch.setattr(backends, "trusted", refuse)


def test_after_a_refusal_on_another_device_the_next_step_is_refused_too(refusing):
    opt = optimizer()
    opt.param_groups[0]["params"][0] = torch.zeros(33, device="meta", requires_grad=True)
    refusing()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the self-test failed"):
            opt.step()


def test_a_group_for_which_a_backend_is_refused_has_not_joined(refusing):
    opt = optimizer()
    refusing()
    with pytest.raises(RuntimeError, match="the self-test failed"):
        opt.add_param_group({"params": [numbers(3).requires_grad_()]})
    assert len(opt.param_groups) == 1
    opt.param_groups[0]["params"][0].grad = numbers(33)
    opt.step()


def test_out_of_memory_is_no_verdict(host_kernels, monkeypatch):
    full = torch.OutOfMemoryError("for now")

    def run(backend, device):
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(trust.self_test, "run", run)
        with pytest.raises(torch.OutOfMemoryError):
            optimizer()
    assert optimizer() is not None


def test_the_operator_runs_it(host_kernels, self_tests):
    p = numbers(7)
    torch.ops.lrfused.sgd_([p], [numbers(7, seed=1)], [], torch.tensor(0.1))
    torch.ops.lrfused.sgd_([p], [numbers(7, seed=1)], [], torch.tensor(0.1))
    assert self_tests == [(host_kernels, CPU)]


def test_every_device_is_tested(monkeypatch):
    asked = []

    def verdict(backend, device):
        asked.append(str(device))
        return trust.Verdict("passed")

    monkeypatch.setattr(trust, "verdict", verdict)
    devices = [torch.device(name) for name in ("cuda:0", "cpu", "cuda:1")]
    assert trust.failure(pretend_backend("pretend"), devices) is None
    assert asked == ["cuda:0", "cuda:1"]


def test_the_environment_leaves_it_out(host_kernels, self_tests, monkeypatch):
    monkeypatch.setenv("LRFUSED_SELF_TEST", "0")
    plant_in_step(monkeypatch, host_kernels, wrong_rounding)
    assert optimizer().backend == host_kernels
    assert self_tests == []
    assert trust.verdict(backends.choose(host_kernels), CPU).state == "left out"


@pytest.mark.parametrize("value", ["", "no", "2"])
def test_another_value_is_refused(host_kernels, self_tests, monkeypatch, value):
    monkeypatch.setenv("LRFUSED_SELF_TEST", value)
    with pytest.raises(ValueError, match=f"^LRFUSED_SELF_TEST must be 0 or 1, got '{value}'$"):
        optimizer()
    monkeypatch.setenv("LRFUSED_SELF_TEST", "1")
    optimizer()
    assert len(self_tests) == 1


def test_in_a_capture_it_is_refused_and_made_up_for_later(host_kernels, self_tests, monkeypatch):
    monkeypatch.setattr(transfer, "capturing", lambda device: True)
    with pytest.raises(RuntimeError, match="construct the optimizer before the capture"):
        optimizer()
    assert self_tests == []
    monkeypatch.setattr(transfer, "capturing", lambda device: False)
    optimizer()
    monkeypatch.setattr(transfer, "capturing", lambda device: True)
    optimizer()
    assert len(self_tests) == 1


def test_of_many_threads_one_runs_it(host_kernels, self_tests):
    barrier = threading.Barrier(8)
    found = []

    def construct():
        barrier.wait()
        found.append(backends.trusted("auto", [CPU]))

    threads = [threading.Thread(target=construct) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [backends.choose(host_kernels)] * 8
    assert len(self_tests) == 1


def construct_in_a_child(name):
    assert optimizer().backend == name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_forked_during_a_test_runs_its_own(host_kernels):
    with lock_of_trust():  # as if another thread were in the test
        child = multiprocessing.get_context("fork").Process(
            target=construct_in_a_child, args=(host_kernels,)
        )
        child.start()
        child.join(60)
        if child.exitcode is None:
            child.kill()
    assert child.exitcode == 0
