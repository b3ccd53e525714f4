"""Every backend keeps the contract, and the rules find a toy that breaks any of it."""

import pytest
from support import toy
from support.contract import RULES

from lrfused import backends

BACKENDS = ("compiled", "reference", "cuda", "triton", "toy")


@pytest.fixture
def register(monkeypatch):
    """Return a function that registers a toy; all toys are forgotten afterwards."""
    return lambda source: toy.register(monkeypatch, source)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_keeps_the_contract(name, rule, register):
    if name == "toy":
        register(toy.source())
    if why := backends.available()[name]:
        pytest.skip(f"{name}: {why}")
    RULES[rule](name)


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
