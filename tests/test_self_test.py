"""The self-test: planted faults are found and named, and the next backend is used."""

import inspect
import re
import warnings

import pytest
import torch
from support.inside import prefer, verdicts
from support.self_tests import (
    CPU,
    HOST_KERNELS,
    failed_launch,
    flip,
    optimizer,
    params_of,
    plant_in_step,
    pretend_backend,
    wrong_rounding,
)

from lrfused import backends
from lrfused.backends import self_test, trust

pytestmark = pytest.mark.usefixtures("untested")


def test_every_backend_passes(host_kernels, self_tests, recwarn):
    assert optimizer().backend == host_kernels
    assert self_tests == [(host_kernels, CPU)]
    found = trust.verdict(backends.choose(host_kernels), CPU)
    assert found.state == "passed"
    assert not recwarn.list


def test_the_reference_is_not_tested_against_itself(self_tests):
    assert optimizer("reference").backend == "reference"
    assert self_tests == []


# -- planted faults ------------------------------------------------------------------------------


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


@pytest.mark.parametrize("fault", STEP_FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_named_once_and_the_next_backend_is_used(
    host_kernels, fault, monkeypatch, self_tests
):
    plant_in_step(monkeypatch, host_kernels, fault)
    begin = f"lrfused: the self-test of the {host_kernels} backend on cpu failed: "
    with pytest.warns(UserWarning, match=re.escape(begin)) as told:
        opt = optimizer()
    assert opt.backend == "reference"
    (warning,) = told
    assert re.search(STEP_FAULTS[fault], str(warning.message))
    assert "\n" not in str(warning.message)
    assert str(warning.message).endswith("; the reference backend is used instead")
    assert warning.filename == inspect.getfile(optimizer)  # the caller's
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert optimizer().backend == "reference"
    assert len(self_tests) == 1


@pytest.mark.parametrize("fault", [wrong_rounding, failed_launch], ids=lambda f: f.__name__)
def test_a_backend_asked_for_by_name_is_refused_in_the_same_words(host_kernels, fault, monkeypatch):
    plant_in_step(monkeypatch, host_kernels, fault)
    words = f"the self-test of the {host_kernels} backend on cpu failed: .*{STEP_FAULTS[fault]}$"
    for _ in range(2):
        with pytest.raises(RuntimeError, match=words):
            optimizer(host_kernels)
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


def test_a_plateau_that_cuts_late_is_found(host_kernels, monkeypatch):
    module = backends.choose(host_kernels)
    monkeypatch.setattr(module, "Program", patience_one_more(module.Program))
    with pytest.warns(UserWarning, match=rf"failed: plain, step 3: lr {VALUES}"):
        assert optimizer().backend == "reference"


def test_a_plateau_that_cuts_late_on_the_device_alone_is_found(host_kernels, monkeypatch):
    if host_kernels == "compiled":
        pytest.skip("the compiled backend runs the schedule on the host")
    module = backends.choose(host_kernels)
    monkeypatch.setattr(module, "Program", patience_one_more_on_the_device(module.Program))
    with pytest.warns(UserWarning, match=rf"plain, float64, .*, step 4: parameter\[\d+\] {VALUES}"):
        assert optimizer().backend == "reference"


def test_the_next_backend_is_tested_too(monkeypatch):
    usable = [n for n in HOST_KERNELS if backends.available()[n] is None]
    if len(usable) < 2 or torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("fewer than two backends have host_kernels for the CPU here")
    first, second = usable[:2]
    prefer(monkeypatch, first, second, "reference")
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
        return pretend_backend(name)

    monkeypatch.setattr(backends, "_load", pretend)
    for name in ("cuda", "triton"):
        verdicts()[name, device] = trust.Verdict("failed", "a bit differs")
    with pytest.warns(UserWarning, match="on cuda:0 failed: a bit differs; the compiled") as told:
        assert backends.trusted("auto", [device]) is backends.choose("compiled")
    assert len(told) == 2
    with pytest.raises(RuntimeError, match="the cuda backend on cuda:0 failed: a bit differs"):
        backends.trusted("compiled", [device])
