"""The contract of a backend, as rules: lrfused/backends/base.py has it in words.

A rule is a function of a backend's name that fails where the backend breaks it, and no rule looks
at what another is about. What is planted is planted in what every backend calls, or in `launches`.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch

from lrfused import ExponentialLR, FusedDecaySGD
from lrfused.backends import reference
from support.bits import assert_same_bits, assert_same_rates, differ
from support.twin import assert_same_state, assert_unchanged, leaf, numbers, rates, snapshot

RULES: dict[str, Callable[[str], None]] = {}
# Where to plant a failure of the update itself, by backend; without one there is no such place.
launches = {
    "cuda": "lrfused.backends.cuda.device_step.DeviceStep.launch",
    "triton": "lrfused.backends.triton.device_step.DeviceStep.launch",
}
HYPER = {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True}


class Planted(Exception):
    """A failure that a rule has planted."""


def rule(function: Callable[[str], None]) -> Callable[[str], None]:
    RULES[function.__name__] = function
    return function


def made(backend: str, values: Any = None, **kwargs: Any) -> FusedDecaySGD:
    """Make an optimizer of some parameters that have gradients."""
    values = [numbers(33), numbers(7, seed=1)] if values is None else values
    settings = {"lr": 0.1, "schedule": ExponentialLR(0.9), **HYPER, **kwargs}
    optimizer = FusedDecaySGD([leaf(v) for v in values], backend=backend, **settings)
    give(optimizer, 0)
    return optimizer


def params_of(optimizer: Any) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def give(optimizer: Any, step: int) -> None:
    """Set a new gradient on each parameter."""
    for i, p in enumerate(params_of(optimizer)):
        p.grad = numbers(*p.shape, dtype=p.dtype, seed=100 * step + i + 50)


def odd_gradient(p: torch.Tensor) -> None:
    """Make a parameter odd: its gradient has gaps."""
    assert p.grad is not None
    p.grad = p.grad.repeat_interleave(2)[::2]


def with_odd(backend: str, **kwargs: Any) -> FusedDecaySGD:
    """Make an optimizer whose last parameter is odd."""
    optimizer = made(backend, **kwargs)
    odd_gradient(params_of(optimizer)[-1])
    return optimizer


def versions(optimizer: Any) -> list[int]:
    return [p._version for p in params_of(optimizer)]


@contextlib.contextmanager
def nothing_changes(optimizer: FusedDecaySGD) -> Iterator[None]:
    """Fail if a parameter, its version, the state, the schedule or the rates noted differ after."""
    before, numbered = snapshot(optimizer), versions(optimizer)
    used, history = repr(optimizer.lr_used), repr(optimizer.lr_history())
    kept = {p: dict(own) for p, own in optimizer.state.items() if own}
    yield
    assert_unchanged(optimizer, before)
    assert versions(optimizer) == numbered
    assert repr(optimizer.lr_used) == used
    assert repr(optimizer.lr_history()) == history
    now = {p: own for p, own in optimizer.state.items() if own}
    assert now.keys() == kept.keys()
    for p, own in now.items():
        assert own.keys() == kept[p].keys()
        assert all(own[key] is kept[p][key] for key in own)


# -- refusals ------------------------------------------------------------------------------------


def integer_parameter(optimizer, p):
    q = torch.ones(3, dtype=torch.int32)
    q.grad = torch.ones_like(q)
    optimizer.param_groups[0]["params"][-1] = q


def overlapping_parameter(optimizer, p):
    q = torch.ones(1).expand(7).detach().requires_grad_()
    q.grad = torch.ones(7)
    optimizer.param_groups[0]["params"][-1] = q


def sparse_gradient_with_decay(optimizer, p):
    p.grad = p.grad.to_sparse()


def momentum_of_another_shape(optimizer, p):
    optimizer.state[p]["momentum_buffer"] = torch.ones(8)


def momentum_of_another_dtype(optimizer, p):
    optimizer.state[p]["momentum_buffer"] = torch.ones(7, dtype=torch.float64)


def decay_out_of_range(optimizer, p):
    optimizer.param_groups[0]["weight_decay"] = 1e39


def rate_out_of_range(optimizer, p):
    optimizer.param_groups[0]["lr"] = 1e39


def momentum_that_is_no_number(optimizer, p):
    optimizer.param_groups[0]["dampening"] = "0.9"


REFUSALS = {
    integer_parameter: TypeError,
    overlapping_parameter: TypeError,
    sparse_gradient_with_decay: RuntimeError,
    momentum_of_another_shape: TypeError,
    momentum_of_another_dtype: TypeError,
    decay_out_of_range: ValueError,
    rate_out_of_range: ValueError,
    momentum_that_is_no_number: TypeError,
}


@rule
def a_refusal_comes_before_the_first_write(backend):
    for plant, error in REFUSALS.items():
        for steps in (0, 1):
            optimizer = made(backend)
            for step in range(steps):
                optimizer.step()
                give(optimizer, step + 1)
            plant(optimizer, params_of(optimizer)[-1])
            optimizer.scheduler.get_last_lr()
            if plant is rate_out_of_range:  # taken over by a step, whether or not it is refused
                with pytest.raises(error):
                    optimizer.step()
            with nothing_changes(optimizer), pytest.raises(error):
                optimizer.step()


# -- GradScaler and clipping ---------------------------------------------------------------------


@rule
def what_gradscaler_found_makes_no_update(backend):
    for found in (1.0, math.nan, 2.0, -1.0):
        for advance in ("always", "on_update"):
            optimizer = made(backend, amp="fused", advance=advance)
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(0.0)
            optimizer.step()
            for odd in (False, True):
                give(optimizer, 1)
                if odd:
                    odd_gradient(params_of(optimizer)[-1])
                before, epoch = snapshot(optimizer), optimizer.scheduler.last_epoch
                optimizer.found_inf = torch.tensor(found)
                optimizer.step()
                after = snapshot(optimizer)
                for key in ("params", "momentum"):
                    for now, then in zip(after[key], before[key], strict=True):
                        assert_same_bits(now, then, f"{key}, found_inf = {found}")
                rests = advance == "on_update"
                assert optimizer.scheduler.last_epoch == epoch + (not rests)
                assert (after["rates"] == before["rates"]) == rests


@rule
def gradients_are_clipped_by_the_norm_of_all(backend):
    for odd in (False, True):
        both = [made(name, max_grad_norm=0.5) for name in (backend, "reference")]
        for step in range(2):
            for optimizer in both:
                give(optimizer, step)
                if odd:
                    odd_gradient(params_of(optimizer)[-1])
                optimizer.step()
            assert_same_bits(both[0].grad_norm, both[1].grad_norm)
        assert float(both[0].grad_norm) > 0.5
        for mine, other in zip(*map(params_of, both), strict=True):
            assert_same_bits(mine, other)


@rule
def a_norm_that_is_not_finite_makes_no_update_under_a_gradscaler(backend):
    optimizer = made(backend, amp="fused", max_grad_norm=0.5, advance="on_update")
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(0.0)
    params_of(optimizer)[0].grad[0] = math.inf
    before = snapshot(optimizer)
    optimizer.step()
    assert_unchanged(optimizer, before)


# -- state, versions, rates ----------------------------------------------------------------------


@rule
def a_failed_launch_leaves_no_half_made_state(backend):
    if backend not in launches:
        return
    optimizer = made(backend)
    with mock.patch(launches[backend], side_effect=Planted), pytest.raises(Planted):
        optimizer.step()
    assert not any(optimizer.state.values())
    assert optimizer.scheduler.last_epoch == 0


@rule
def a_failed_odd_parameter_leaves_no_half_made_state(backend):
    optimizer = with_odd(backend)
    *plain, odd = params_of(optimizer)
    before = odd.detach().clone()
    right = reference.update_own

    def fail(p, *rest):
        if p is odd:
            raise Planted
        right(p, *rest)

    with mock.patch.object(reference, "update_own", fail), contextlib.suppress(Planted):
        optimizer.step()
        return  # the rule about odd parameters fails
    assert_same_bits(odd, before)
    assert not optimizer.state.get(odd)
    assert all("momentum_buffer" in optimizer.state[p] for p in plain)


@rule
def autograd_notices_that_parameters_were_written(backend):
    optimizer = made(backend)
    for p in params_of(optimizer):
        loss = p.square().sum()
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@rule
def the_rates_used_are_noted(backend):
    for found in (0.0, 1.0):
        optimizer = made(backend, amp="fused")
        optimizer.grad_scale = torch.tensor(1.0)
        for _ in range(2):
            shown = rates(optimizer)
            optimizer.found_inf = torch.tensor(found)
            optimizer.step()
            assert_same_rates(optimizer.lr_used, shown)


@rule
def the_schedule_advances_after_all_tensors_and_is_shown(backend):
    optimizer = with_odd(backend)
    before, seen = rates(optimizer), []
    right = reference.update_own

    def look(*args):
        right(*args)
        seen.append((rates(optimizer), optimizer.scheduler.last_epoch))

    with mock.patch.object(reference, "update_own", look):
        optimizer.step()
    for shown, epoch in seen:
        assert_same_rates(shown, before)
        assert epoch == 0
    assert optimizer.scheduler.last_epoch == 1
    assert_same_rates(rates(optimizer), [before[0] * 0.9])
    failing = mock.patch.object(reference, "update_own", side_effect=Planted)
    with failing, contextlib.suppress(Planted):
        optimizer.step()
        return  # the rule about odd parameters fails
    assert optimizer.scheduler.last_epoch == 1


# -- bits ----------------------------------------------------------------------------------------


@rule
def plain_parameters_have_the_references_bits(backend):
    dampened = {"momentum": 0.8, "dampening": 0.3, "nesterov": False, "maximize": True}
    for hyper in (HYPER, {"momentum": 0.0, "nesterov": False}, dampened):
        for scale in (None, 3.0):
            both = [made(name, amp="fused", **hyper) for name in (backend, "reference")]
            for step in range(3):
                for optimizer in both:
                    give(optimizer, step)
                    if scale is not None:
                        optimizer.grad_scale = torch.tensor(scale)
                        optimizer.found_inf = torch.tensor(0.0)
                    optimizer.step()
            for mine, other in zip(*map(params_of, both), strict=True):
                assert_same_bits(mine, other)


def sparse_gradient(p: torch.Tensor) -> None:
    """Make a parameter odd: its gradient is sparse."""
    assert p.grad is not None
    p.grad = p.grad.to_sparse()


def complex_parameter(p: torch.Tensor) -> None:
    """Do nothing: the parameter is odd as it is."""


ODD = (
    (odd_gradient, numbers(7, seed=1), HYPER),
    (sparse_gradient, numbers(7, seed=1), {**HYPER, "weight_decay": 0.0}),
    (complex_parameter, numbers(7, dtype=torch.complex64, seed=1), HYPER),
)


@rule
def odd_parameters_have_the_references_bits(backend):
    for make_odd, value, hyper in ODD:
        both = [made(name, [numbers(33), value], **hyper) for name in (backend, "reference")]
        for step in range(3):
            for optimizer in both:
                give(optimizer, step)
                make_odd(params_of(optimizer)[-1])
                optimizer.step()
        mine, other = (params_of(optimizer)[-1] for optimizer in both)
        assert_same_bits(mine, other)
        assert_same_bits(
            both[0].state[mine]["momentum_buffer"], both[1].state[other]["momentum_buffer"]
        )


@rule
def nothing_of_the_last_step_is_trusted(backend):
    optimizer = made(backend)
    optimizer.step()
    give(optimizer, 1)
    new = leaf(numbers(9, seed=7))
    new.grad = numbers(9, seed=8)
    old, kept = optimizer.param_groups[0]["params"]
    optimizer.param_groups[0]["params"] = [new, kept]
    kept.data = kept.data.clone()  # moved
    before = [p.detach().clone() for p in (old, new, kept)]
    optimizer.step()
    assert_same_bits(old, before[0])
    assert differ(new, before[1])
    assert differ(kept, before[2])


@rule
def masters_have_the_references_state(backend):
    dtypes = (torch.bfloat16, torch.float16)
    values = [numbers(n, dtype=dtype, seed=n) for n in (0, 1, 33) for dtype in dtypes]
    both = [made(name, values, master_weights=True) for name in (backend, "reference")]
    for step in range(3):
        for optimizer in both:
            give(optimizer, step)
            optimizer.step()
    assert_same_state(*both)
