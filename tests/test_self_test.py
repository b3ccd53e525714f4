"""The self-test: planted faults are found and named, and the next backend is used."""

import contextlib
import multiprocessing
import os
import random
import re
import subprocess
import sys
import threading
import types
import warnings
from pathlib import Path

import pytest
import torch
from support.twin import leaf, numbers
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lrfused import FusedDecaySGD, backends
from lrfused.backends import self_test, trust
from lrfused.backends.device import transfer
from lrfused.commands import info
from lrfused.commands.main import main

CPU = torch.device("cpu")
HOST_KERNELS = ("compiled", "cuda", "triton")


@pytest.fixture(autouse=True)
def untested(monkeypatch):
    """Forget all verdicts and warnings, as in a new process."""
    monkeypatch.setattr(trust, "_verdicts", {})
    backends._warn_once.cache_clear()


@pytest.fixture(params=HOST_KERNELS)
def kernels(request, monkeypatch):
    """Name a backend with kernels that run on the CPU; "auto" prefers it there."""
    why = backends.available()[request.param]
    if why is not None or not trust.is_tested(backends.choose(request.param), CPU):
        pytest.skip(f"{request.param} has no kernels for the CPU here: {why}")
    if request.param != "compiled" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("torch itself does not fuse with ATEN_CPU_CAPABILITY=default, and GPUs do")
    monkeypatch.setitem(backends._PREFERRED, "cpu", (request.param, "reference"))
    return request.param


@pytest.fixture
def runs(monkeypatch):
    """Count the self-tests."""
    counted = []
    run = self_test.run

    def counting(backend, device):
        counted.append((backends.name_of(backend), device))
        return run(backend, device)

    monkeypatch.setattr(self_test, "run", counting)
    return counted


def optimizer(backend="auto"):
    return FusedDecaySGD([leaf(numbers(33))], lr=0.1, momentum=0.9, backend=backend)


def test_every_backend_passes(kernels, runs, recwarn):
    assert optimizer().backend == kernels
    assert runs == [(kernels, CPU)]
    found = trust.verdict(backends.choose(kernels), CPU)
    assert found.state == "passed"
    assert not recwarn.list


def test_the_reference_is_not_tested_against_itself(runs):
    assert optimizer("reference").backend == "reference"
    assert runs == []


# -- planted faults ------------------------------------------------------------------------------


def flip(flat, index):
    width = {8: torch.int64, 4: torch.int32, 2: torch.int16}[flat.dtype.itemsize]
    flat.view(width)[index] ^= 1


def params_of(groups):
    return [p for group in groups for p in group["params"]]


def wrong_rounding(right, calls, groups, state, program, advance, scaling):
    done = right(groups, state, program, advance, scaling)
    if calls == 1:
        flip(next(p for p in params_of(groups) if p.dtype == torch.bfloat16), 70)
    return done


def wrong_first_momentum(right, calls, groups, state, program, advance, scaling):
    done = right(groups, state, program, advance, scaling)
    if calls == 0:
        first = next(p for p in groups[1]["params"] if p.dtype == torch.float64)
        flip(state[first]["momentum_buffer"], 0)
    return done


def without_decay(right, calls, groups, *rest):
    decays = [group["weight_decay"] for group in groups]
    for group in groups:
        group["weight_decay"] = 0.0
    done = right(groups, *rest)
    for group, decay in zip(groups, decays, strict=True):
        group["weight_decay"] = decay
    return done


def minimizing(right, calls, groups, *rest):
    wanted = [group["maximize"] for group in groups]
    for group in groups:
        group["maximize"] = False
    done = right(groups, *rest)
    for group, maximize in zip(groups, wanted, strict=True):
        group["maximize"] = maximize
    return done


def schedule_late(right, calls, groups, state, program, advance, scaling):
    return right(groups, state, program, advance and calls > 0, scaling)


def wrong_misaligned_tail(right, calls, groups, *rest):
    done = right(groups, *rest)
    for p in params_of(groups):
        if p.data_ptr() % 16 and p.dtype == torch.float32 and p.grad is not None:
            flip(p, len(p) - 1)
    return done


def writes_beyond(right, calls, groups, *rest):
    done = right(groups, *rest)
    if calls == 0:
        p = next(p for p in params_of(groups) if p.dtype == torch.float16)
        flip(p._base, p.storage_offset() + len(p))
    return done


def writes_gradients(right, calls, groups, *rest):
    done = right(groups, *rest)
    if calls == len(self_test.METRICS) - 1:
        flip(params_of(groups)[0].grad, 5)
    return done


def no_momentum_kept(right, calls, groups, state, *rest):
    done = right(groups, state, *rest)
    state.clear()
    return done


def momentum_without_need(right, calls, groups, state, *rest):
    done = right(groups, state, *rest)
    for p in groups[0]["params"]:
        state[p]["momentum_buffer"] = torch.zeros_like(p)
    return done


def failed_launch(right, calls, *rest):
    raise RuntimeError("no kernel image is available\nfor execution on the device")


VALUES = r"is \S+ \(0x[0-9a-f]+\), should be \S+ \(0x[0-9a-f]+\)"
MAXIMIZED = "momentum, dampening, decay, maximize"
STEP_FAULTS = {
    wrong_rounding: rf"plain, bfloat16, aligned .* 75 elements, step 2: parameter\[70\] {VALUES}",
    wrong_first_momentum: rf"momentum, OneCycleLR, float64, .*, step 1: momentum\[0\] {VALUES}",
    without_decay: rf"Nesterov, decay, float64, .*, step 1: \w+\[\d+\] {VALUES}",
    minimizing: rf"{MAXIMIZED}, float64, .*, step 3: \w+\[\d+\] {VALUES}",
    schedule_late: rf"momentum, OneCycleLR, step 1: lr {VALUES}",
    wrong_misaligned_tail: rf"float32, misaligned .*, step 3: parameter\[44\] {VALUES}",
    writes_beyond: rf"float16, memory of parameters\[\d+\] {VALUES}",
    writes_gradients: rf"float64, memory of gradients\[\d+\] {VALUES}",
    no_momentum_kept: r"float64, .*, step 1: momentum has 0 elements, should have 75",
    momentum_without_need: r"plain, float64, .*, step 1: momentum has 75 elements, should have 0",
    failed_launch: r"RuntimeError: no kernel image is available",
}


def plant_in_step(monkeypatch, name, fault):
    module = backends.choose(name)
    right, calls = module.step, iter(range(10**6))
    monkeypatch.setattr(module, "step", lambda *args: fault(right, next(calls), *args))


@pytest.mark.parametrize("fault", STEP_FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_named_once_and_the_next_backend_is_used(kernels, fault, monkeypatch, runs):
    plant_in_step(monkeypatch, kernels, fault)
    begin = f"lrfused: the self-test of the {kernels} backend on cpu failed: "
    with pytest.warns(UserWarning, match=re.escape(begin)) as told:
        opt = optimizer()
    assert opt.backend == "reference"
    (warning,) = told
    assert re.search(STEP_FAULTS[fault], str(warning.message))
    assert "\n" not in str(warning.message)
    assert str(warning.message).endswith("; the reference backend is used instead")
    assert warning.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert optimizer().backend == "reference"
    assert len(runs) == 1


@pytest.mark.parametrize("fault", [wrong_rounding, failed_launch], ids=lambda f: f.__name__)
def test_a_backend_asked_for_by_name_is_refused_in_the_same_words(kernels, fault, monkeypatch):
    plant_in_step(monkeypatch, kernels, fault)
    words = f"the self-test of the {kernels} backend on cpu failed: .*{STEP_FAULTS[fault]}$"
    for _ in range(2):
        with pytest.raises(RuntimeError, match=words):
            optimizer(kernels)
    with pytest.warns(UserWarning, match=words.removesuffix("$")):
        optimizer()


def patience_one_more(right):
    class Late(right):
        def __init__(self, moved, packed, *others, **named):
            plateaus = packed.plateaus.clone()
            plateaus[:, 3] += 1
            super().__init__(moved, packed._replace(plateaus=plateaus), *others, **named)

    return Late


def patience_one_more_on_the_device(right):
    class Late(right):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            plateaus = self._fixed["plateaus"].clone()
            plateaus[:, 3] += 1
            self._fixed["plateaus"] = plateaus

    return Late


def test_a_plateau_that_cuts_late_is_found(kernels, monkeypatch):
    module = backends.choose(kernels)
    monkeypatch.setattr(module, "Program", patience_one_more(module.Program))
    with pytest.warns(UserWarning, match=rf"failed: plain, step 3: lr {VALUES}"):
        assert optimizer().backend == "reference"


def test_a_plateau_that_cuts_late_on_the_device_alone_is_found(kernels, monkeypatch):
    if kernels == "compiled":
        pytest.skip("the compiled backend runs the schedule on the host")
    module = backends.choose(kernels)
    monkeypatch.setattr(module, "Program", patience_one_more_on_the_device(module.Program))
    with pytest.warns(UserWarning, match=rf"plain, float64, .*, step 4: parameter\[\d+\] {VALUES}"):
        assert optimizer().backend == "reference"


def test_the_next_backend_is_tested_too(monkeypatch):
    usable = [n for n in HOST_KERNELS if backends.available()[n] is None]
    if len(usable) < 2 or torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("fewer than two backends have kernels for the CPU here")
    first, second = usable[:2]
    monkeypatch.setitem(backends._PREFERRED, "cpu", (first, second, "reference"))
    plant_in_step(monkeypatch, first, failed_launch)
    plant_in_step(monkeypatch, second, wrong_rounding)
    with pytest.warns(UserWarning, match="the self-test of") as told:
        assert optimizer().backend == "reference"
    assert [str(w.message).split()[4:6] for w in told] == [["the", first], ["the", second]]


def test_on_a_gpu_whose_kernels_fail_the_compiled_backend_calls_the_reference(monkeypatch):
    if backends.available()["compiled"] is not None:
        pytest.skip(f"no compiled backend: {backends.available()['compiled']}")
    load, device = backends._load, torch.device("cuda:0")

    def pretend(name):
        if name not in ("cuda", "triton"):
            return load(name)
        module = types.ModuleType(f"lrfused.backends.{name}")
        module.Program = types.SimpleNamespace(runs_on=lambda device: device.type == "cuda")
        return module

    monkeypatch.setattr(backends, "_load", pretend)
    for name in ("cuda", "triton"):
        trust._verdicts[name, device] = trust.Verdict("failed", "a bit differs")
    with pytest.warns(UserWarning, match="on cuda:0 failed: a bit differs; the compiled") as told:
        assert backends.trusted("auto", [device]) is backends.choose("compiled")
    assert len(told) == 2
    with pytest.raises(RuntimeError, match="the cuda backend on cuda:0 failed: a bit differs"):
        backends.trusted("compiled", [device])


# -- when it runs --------------------------------------------------------------------------------


def test_it_runs_once_per_process_and_not_in_a_step(kernels, runs, monkeypatch):
    opt = optimizer()
    optimizer()
    assert len(runs) == 1
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


def test_out_of_memory_is_no_verdict(kernels, monkeypatch):
    full = torch.OutOfMemoryError("for now")

    def run(backend, device):
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(trust.self_test, "run", run)
        with pytest.raises(torch.OutOfMemoryError):
            optimizer()
    assert optimizer() is not None


def test_the_operator_runs_it(kernels, runs):
    p = numbers(7)
    torch.ops.lrfused.sgd_([p], [numbers(7, seed=1)], [], torch.tensor(0.1))
    torch.ops.lrfused.sgd_([p], [numbers(7, seed=1)], [], torch.tensor(0.1))
    assert runs == [(kernels, CPU)]


def test_every_device_is_tested(monkeypatch):
    asked = []

    class Program:
        runs_on = staticmethod(lambda device: device.type == "cuda")

    def verdict(backend, device):
        asked.append(str(device))
        return trust.Verdict("passed")

    pretend = types.ModuleType("lrfused.backends.pretend")
    pretend.Program = Program
    monkeypatch.setattr(trust, "verdict", verdict)
    devices = [torch.device(name) for name in ("cuda:0", "cpu", "cuda:1")]
    assert trust.failure(pretend, devices) is None
    assert asked == ["cuda:0", "cuda:1"]


def test_the_environment_leaves_it_out(kernels, runs, monkeypatch):
    monkeypatch.setenv("LRFUSED_SELF_TEST", "0")
    plant_in_step(monkeypatch, kernels, wrong_rounding)
    assert optimizer().backend == kernels
    assert runs == []
    assert trust.verdict(backends.choose(kernels), CPU).state == "left out"


@pytest.mark.parametrize("value", ["", "no", "2"])
def test_another_value_is_refused(kernels, runs, monkeypatch, value):
    monkeypatch.setenv("LRFUSED_SELF_TEST", value)
    with pytest.raises(ValueError, match=f"^LRFUSED_SELF_TEST must be 0 or 1, got '{value}'$"):
        optimizer()
    monkeypatch.setenv("LRFUSED_SELF_TEST", "1")
    optimizer()
    assert len(runs) == 1


def test_in_a_capture_it_is_refused_and_made_up_for_later(kernels, runs, monkeypatch):
    monkeypatch.setattr(transfer, "capturing", lambda device: True)
    with pytest.raises(RuntimeError, match="construct the optimizer before the capture"):
        optimizer()
    assert runs == []
    monkeypatch.setattr(transfer, "capturing", lambda device: False)
    optimizer()
    monkeypatch.setattr(transfer, "capturing", lambda device: True)
    optimizer()
    assert len(runs) == 1


def test_of_many_threads_one_runs_it(kernels, runs):
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
    assert found == [backends.choose(kernels)] * 8
    assert len(runs) == 1


def construct_in_a_child(name):
    assert optimizer().backend == name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_forked_during_a_test_runs_its_own(kernels):
    with trust._lock:  # as if another thread were in the test
        child = multiprocessing.get_context("fork").Process(
            target=construct_in_a_child, args=(kernels,)
        )
        child.start()
        child.join(60)
        if child.exitcode is None:
            child.kill()
    assert child.exitcode == 0


# -- what it leaves alone ------------------------------------------------------------------------


@contextlib.contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def flushing():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush denormals")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


MODES = {
    "inference": torch.inference_mode,
    "no grad": torch.no_grad,
    "default device": default_device,
    "with device": lambda: torch.device("meta"),
    "default dtype": default_dtype,
    "fake tensors": FakeTensorMode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "deterministic": deterministic,
    "flushing": flushing,
    "anomaly": lambda: torch.autograd.detect_anomaly(check_nan=True),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_it_passes_in_every_mode(kernels, mode):
    with MODES[mode]():
        assert backends.trusted("auto", [CPU]) is backends.choose(kernels)
    assert trust.verdict(backends.choose(kernels), CPU).state == "passed"


def test_it_leaves_no_trace(kernels):
    calls = []
    hook = register_optimizer_step_pre_hook(lambda *args: calls.append(args))
    before = torch.get_rng_state(), random.getstate(), list(warnings.filters)
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, acc_events=True) as profiler:
        optimizer()
    hook.remove()
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), list(warnings.filters))
    assert calls == []
    assert not {event.key for event in profiler.key_averages()} & {"aten::add", "aten::mul_"}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc/self/task here")
def test_it_wakes_no_threads_of_torch():
    code = """
import os, torch
torch.set_num_threads(8)
from lrfused import backends
from lrfused.backends import self_test
torch.optim.SGD([torch.zeros(1)])
before = len(os.listdir("/proc/self/task"))
self_test.run(backends.choose("compiled"), torch.device("cpu"))
print(len(os.listdir("/proc/self/task")) - before)
"""
    if backends.available()["compiled"] is not None:
        pytest.skip(f"no compiled backend: {backends.available()['compiled']}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


# -- lrfused info --------------------------------------------------------------------------------


def test_info_shows_what_passed(kernels, capsys):
    assert main(["info"]) == 0
    assert re.search(rf"{kernels} .*cpu .*passed in \d+\.\d ms", capsys.readouterr().out)


def test_info_shows_what_failed_and_what_is_used_instead(kernels, capsys, monkeypatch):
    plant_in_step(monkeypatch, kernels, failed_launch)
    assert info.report()[1][0][2] == "reference"
    ((state, difference),) = [
        (verdict.state, verdict.why)
        for name, device, verdict in info.self_tests()
        if name == kernels and device == CPU
    ]
    assert (state, difference) == ("failed", "RuntimeError: no kernel image is available")
    assert main(["info"]) == 0
    assert "failed in " in capsys.readouterr().out


def test_info_shows_what_was_left_out(kernels, capsys, monkeypatch):
    monkeypatch.setenv("LRFUSED_SELF_TEST", "0")
    assert main(["info"]) == 0
    assert "left out (LRFUSED_SELF_TEST=0)" in capsys.readouterr().out


def test_info_refuses_another_value(kernels, capsys, monkeypatch):
    monkeypatch.setenv("LRFUSED_SELF_TEST", "yes")
    assert main(["info"]) == 2
    assert capsys.readouterr().err == "lrfused info: LRFUSED_SELF_TEST must be 0 or 1, got 'yes'\n"
