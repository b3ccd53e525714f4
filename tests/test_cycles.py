"""An optimizer that nobody uses is freed, whatever of it a hook, a parameter or a group holds."""

import gc
import weakref

import pytest
import torch
from support.twin import leaf, numbers

from lrfused import FusedDecaySGD, ReduceLROnPlateau, StepLR

OPTIONS = {
    "plain": {},
    "scheduled": {"momentum": 0.9, "schedule": StepLR(2)},
    "clipped": {"max_grad_norm": 1.0, "schedule": [StepLR(2), ReduceLROnPlateau()]},
}


def hook(optimizer, p):
    p.register_hook(lambda grad: grad if optimizer else None)


def attribute(optimizer, p):
    p.optimizer = optimizer


def in_group(optimizer, p):
    optimizer.param_groups[0]["owner"] = optimizer


def in_state(optimizer, p):
    optimizer.state[p]["owner"] = optimizer


def step_hook(optimizer, p):
    optimizer.register_step_post_hook(lambda *_: optimizer.param_groups)


HOLDERS = [hook, attribute, in_group, in_state, step_hook]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_cycles_through_an_optimizer_are_collected(backend, options):
    def used(hold, steps):
        p = leaf(numbers(9))
        optimizer = FusedDecaySGD([p], lr=0.1, backend=backend, **options)
        for _ in range(steps):
            p.grad = numbers(9, seed=1)
            optimizer.step()
        hold(optimizer, p)
        return weakref.ref(optimizer), weakref.ref(p)

    alive = {(hold.__name__, n): used(hold, n) for hold in HOLDERS for n in (0, 1, 5)}
    gc.collect()
    assert [which for which, pair in alive.items() if any(ref() is not None for ref in pair)] == []


def test_the_collector_may_see_a_program_before_it_is_made():
    pytest.importorskip("lrfused.extension.load")
    from lrfused import _C

    program = _C.Program.__new__(_C.Program)
    assert gc.is_tracked(program)
    assert gc.get_referents(program) == [_C.Program]


def test_what_an_optimizer_refers_to_is_what_its_collector_sees():
    """Each list that a program holds in C++ is visited once: the collector counts references."""
    p = torch.nn.Parameter(torch.ones(8))
    optimizer = FusedDecaySGD([p], lr=0.1, max_grad_norm=1.0, schedule=StepLR(2))
    for _ in range(3):
        p.grad = torch.ones(8)
        optimizer.step()
    rates = optimizer._internals.rates
    if rates.direct is None:
        pytest.skip("no extension makes direct steps here")
    owner = rates.direct.step.__self__
    held = gc.get_referents(owner)
    assert any(each is rates.program for each in held)
    assert type(owner) in held
    shown = rates.shown
    lists = gc.get_referents(rates.program)
    for name in ("groups", "rates", "momenta", "templates", "places", "kept"):
        assert sum(each is getattr(shown, name) for each in lists) == 1
