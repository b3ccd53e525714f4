"""Every backend keeps the contract, and the rules find a toy that breaks any of it."""

import types

import pytest
import torch
from support import contract, toy
from support.contract import RULES
from support.tape import not_emulated

from lrfused import backends
from lrfused.arithmetic.gradient_scaling import GradientScaling


@pytest.fixture
def register(monkeypatch):
    """Return a function that registers a toy; all toys are forgotten afterwards."""
    return lambda source: toy.register(monkeypatch, source)


@pytest.mark.parametrize("rule", RULES)
def test_a_backend_keeps_the_contract(backend, rule):
    RULES[rule](backend)


@pytest.mark.parametrize("rule", RULES)
def test_the_toy_keeps_the_contract(register, rule):
    register(toy.source())
    RULES[rule]("toy")


@pytest.mark.parametrize("rule", toy.BROKEN)
def test_a_toy_that_breaks_a_rule_breaks_that_one_alone(rule, register, monkeypatch):
    monkeypatch.setenv("LRFUSED_SELF_TEST", "0")
    register(toy.broken(rule))
    broken = []
    for name, keeps in RULES.items():
        try:
            keeps("toy")
        except (Exception, pytest.fail.Exception):
            broken.append(name)
    assert broken == [rule]


def test_every_rule_has_a_toy_that_breaks_it():
    assert set(toy.BROKEN) == set(RULES)


# -- captures ------------------------------------------------------------------------------------


def scaled(optimizer):
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(0.0)


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_a_capture_in_which_the_host_decides_on_the_schedule_is_refused(name, tape):
    if why := not_emulated(name):
        pytest.skip(f"{name}: {why}")
    optimizer = contract.made(name, amp="fused", advance="on_update")
    scaled(optimizer)
    for _ in range(2):
        optimizer.step()
    refused = pytest.raises(RuntimeError, match="cannot be captured: with advance='on_update'")
    with contract.nothing_changes(optimizer), refused:
        tape.capture(optimizer.step)
    assert not len(tape)


@pytest.mark.parametrize("name", ["cuda", "triton"])
@pytest.mark.parametrize("given", [{"max_grad_norm": 1.0}, {"found_inf": torch.tensor(0.0)}])
def test_a_capture_in_which_the_host_speaks_for_several_devices_is_refused(name, given):
    if why := backends.available()[name]:
        pytest.skip(f"{name}: {why}")
    devices = [torch.device("cuda", i) for i in range(2)]
    step = types.SimpleNamespace(odd=[], firsts=False, devices=devices)
    with pytest.raises(RuntimeError, match=r"cannot be captured: with .* on several devices"):
        backends.choose(name)._refuse_capture(step, GradientScaling(**given))
