"""Optimizers around ours that copy, save and load its groups by themselves."""

import copy
import io
import json
import warnings

import pytest
import torch
from cases import SCHEDULES
from support.bits import assert_same_bits, assert_same_rates
from support.distributed import alone  # noqa: F401, a fixture
from support.wrappers import CopyingWrapper, SharingWrapper, copy_groups
from torch.optim import lr_scheduler

from lrfused import (
    CosineAnnealingLR,
    ExponentialLR,
    FusedDecaySGD,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    fuse,
)

pytestmark = pytest.mark.backends(
    "host", reason="test_group_wrappers_on_devices.py wraps optimizers of devices"
)


def parameters(count=2):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(3)) for _ in range(count)]


def give_gradients(params, value=0.25):
    for p in params:
        p.grad = torch.full_like(p, value)


def saved(wrapper):
    """Save what a wrapper saves, and load it as a careful program does."""
    file = io.BytesIO()
    torch.save(wrapper.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def rates(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def fused(backend):
    return lambda params, **settings: FusedDecaySGD(params, backend=backend, **settings)


PLAIN = [case for case in SCHEDULES if case.groups is None]


@pytest.mark.parametrize("wrapper", [SharingWrapper, CopyingWrapper])
@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_a_wrapper_that_saves_its_groups_resumes_to_the_bit(backend, case, wrapper):
    def make():
        own = parameters()
        groups = [{"params": [own[0]]}, {"params": [own[1]], "lr": 0.02}]
        return own, wrapper(groups, fused(backend), lr=0.1, momentum=0.9, schedule=[case.ours()])

    def run(params, optimizer, first, last):
        seen = []
        for step in range(first, last):
            give_gradients(params, 0.1 * step)
            optimizer.step()
            if case.is_plateau and step % 2:
                optimizer.inner.scheduler.step(float(step % 3))
            seen.append(rates(optimizer.inner))
        return seen

    params, whole = make()
    run(params, whole, 0, 7)
    checkpoint, halfway = saved(whole), [p.detach().clone() for p in params]
    expected = run(params, whole, 7, 15)
    resumed_params, resumed = make()
    with torch.no_grad():
        for p, half in zip(resumed_params, halfway, strict=True):
            p.copy_(half)
    resumed.load_state_dict(checkpoint)
    for got, want in zip(run(resumed_params, resumed, 7, 15), expected, strict=True):
        assert_same_rates(got, want)
    for ours, theirs in zip(resumed_params, params, strict=True):
        assert_same_bits(ours, theirs)
    assert resumed.inner.scheduler.last_epoch == whole.inner.scheduler.last_epoch


@pytest.mark.parametrize("every", [1, 3])
def test_the_steps_since_the_last_schedule_step_are_saved_with_the_groups(backend, every):
    def make():
        own = parameters()
        return own, SharingWrapper(
            own, fused(backend), lr=0.1, schedule=ExponentialLR(0.5), schedule_every=every
        )

    params, whole = make()
    give_gradients(params)
    for _ in range(4):
        whole.step()
    resumed_params, resumed = make()
    give_gradients(resumed_params)
    resumed.load_state_dict(saved(whole))
    for _ in range(5):
        whole.step(), resumed.step()
        assert rates(whole) == rates(resumed)


def test_a_wrapper_loads_an_earlier_checkpoint_in_mid_run(backend):
    params = parameters()
    optimizer = SharingWrapper(params, fused(backend), lr=0.1, schedule=StepLR(2, 0.5))
    give_gradients(params)
    optimizer.step()
    checkpoint = saved(optimizer)
    seen = [optimizer.step() or rates(optimizer) for _ in range(5)]
    optimizer.load_state_dict(checkpoint)
    assert [optimizer.step() or rates(optimizer) for _ in range(5)] == seen


def test_a_wrapper_that_loads_another_schedule_is_refused_at_the_step(backend):
    params = parameters()
    optimizer = SharingWrapper(params, fused(backend), lr=0.1, schedule=StepLR(2, 0.5))
    other = SharingWrapper(parameters(), fused(backend), lr=0.1, schedule=StepLR(2, 0.25))
    give_gradients(params)
    optimizer.load_state_dict(saved(other))
    before = [p.detach().clone() for p in params]
    with pytest.raises(ValueError, match=r"gamma=0.25, this optimizer's 0.5"):
        optimizer.step()
    for p, kept in zip(params, before, strict=True):
        assert_same_bits(p.detach(), kept)


def test_a_wrapper_that_loads_the_checkpoint_of_torchs_sgd_keeps_the_schedule(backend):
    params = parameters()
    optimizer = SharingWrapper(params, fused(backend), lr=0.1, schedule=StepLR(1, 0.5))
    theirs = SharingWrapper(parameters(), torch.optim.SGD, lr=0.3)
    give_gradients(params)
    optimizer.load_state_dict(saved(theirs))
    optimizer.step()
    assert rates(optimizer) == [0.15]


# -- a handle, and a plateau, between the wrapper's steps ----------------------------------------


def wrapped(kind, backend, params, **settings):
    if kind == "ZeRO":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's module uses what it deprecates
            from torch.distributed.optim import ZeroRedundancyOptimizer
        return ZeroRedundancyOptimizer(
            params, optimizer_class=FusedDecaySGD, backend=backend, **settings
        )
    return CopyingWrapper(params, fused(backend), **settings)


def inner_of(optimizer):
    return getattr(optimizer, "inner", None) or optimizer.optim


COPYING = pytest.mark.parametrize("kind", ["ZeRO", "OSS-like"])


@COPYING
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (StepLR(2, 0.5), lambda o: lr_scheduler.StepLR(o, 2, 0.5)),
        (LinearLR(0.25, total_iters=4), lambda o: lr_scheduler.LinearLR(o, 0.25, total_iters=4)),
        (CosineAnnealingLR(9), lambda o: lr_scheduler.CosineAnnealingLR(o, 9)),
        (
            OneCycleLR(0.3, total_steps=30),
            lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=30),
        ),
        (
            SequentialLR([LinearLR(0.5, total_iters=2), ExponentialLR(0.5)], [2]),
            lambda o: lr_scheduler.SequentialLR(
                o,
                [
                    lr_scheduler.LinearLR(o, 0.5, total_iters=2),
                    lr_scheduler.ExponentialLR(o, 0.5),
                ],
                [2],
            ),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("steps_at_once", [1, 3])
def test_steps_of_the_handle_survive_the_copies(alone, backend, kind, ours, theirs, steps_at_once):  # noqa: F811
    params, others = parameters(), parameters()
    optimizer = wrapped(
        kind, backend, params, lr=0.1, momentum=0.9, schedule=ours, schedule_every=None
    )
    handle = inner_of(optimizer).scheduler
    reference = torch.optim.SGD(others, lr=0.1, momentum=0.9, foreach=False)
    scheduler = theirs(reference)
    for step in range(8):
        give_gradients(params), give_gradients(others)
        optimizer.step(), reference.step()
        for _ in range(steps_at_once):
            handle.step(), scheduler.step()
        assert_same_rates(rates(inner_of(optimizer)), rates(reference), f"step {step}")
    for p, other in zip(params, others, strict=True):
        assert_same_bits(p, other)


@COPYING
def test_cuts_of_a_plateau_survive_the_copies(alone, backend, kind):  # noqa: F811
    optimizer = wrapped(
        kind, backend, parameters(), lr=0.1, schedule=[ReduceLROnPlateau(factor=0.5, patience=0)]
    )
    handle = inner_of(optimizer).scheduler
    for expected in (0.1, 0.05, 0.025):
        handle.step(1.0)
        assert rates(inner_of(optimizer)) == [expected]
        optimizer.step()
        assert rates(optimizer) == [expected]
    assert handle.num_bad_epochs == 0


@COPYING
def test_what_the_handle_is_given_survives_the_copies(alone, backend, kind):  # noqa: F811
    optimizer = wrapped(
        kind, backend, parameters(), lr=0.1, schedule=StepLR(1, 0.5), schedule_every=None
    )
    handle = inner_of(optimizer).scheduler
    optimizer.step()
    handle.gamma = 0.25
    handle.step()
    optimizer.step()
    assert rates(optimizer) == [0.025]
    handle.last_epoch = 7
    optimizer.step()
    handle.step()
    assert handle.last_epoch == 8


@COPYING
@pytest.mark.parametrize("schedule_every", [1, None])
def test_a_rate_written_into_the_wrappers_group_is_followed(alone, backend, kind, schedule_every):  # noqa: F811
    optimizer = wrapped(
        kind, backend, parameters(), lr=0.1, schedule=ExponentialLR(0.5),
        schedule_every=schedule_every,
    )  # fmt: skip
    optimizer.step()
    if schedule_every is None:
        inner_of(optimizer).scheduler.step()
    optimizer.param_groups[0]["lr"] = 0.8
    optimizer.step()
    assert rates(optimizer) == [0.8 if schedule_every is None else 0.4]


@COPYING
def test_the_first_rate_of_a_warmup_survives_the_first_copies(alone, backend, kind):  # noqa: F811
    optimizer = wrapped(kind, backend, parameters(), lr=0.1, schedule=LinearLR(0.5, total_iters=4))
    optimizer.step()
    assert inner_of(optimizer).lr_used == [0.05]


def test_zero_saves_and_resumes(alone, backend):  # noqa: F811
    def make():
        params = parameters()
        return params, wrapped(
            "ZeRO", backend, params, lr=0.1, momentum=0.9, schedule=StepLR(2, 0.5)
        )

    params, optimizer = make()
    give_gradients(params)
    for _ in range(3):
        optimizer.step()
    optimizer.consolidate_state_dict()
    checkpoint = saved(optimizer)
    others, resumed = make()
    with torch.no_grad():
        for p, other in zip(params, others, strict=True):
            other.copy_(p)
    give_gradients(others)
    resumed.load_state_dict(checkpoint)
    for _ in range(4):
        optimizer.step(), resumed.step()
        assert rates(optimizer) == rates(resumed)
    for p, other in zip(params, others, strict=True):
        assert_same_bits(p, other)


@COPYING
def test_a_group_added_between_steps_survives_the_copies(alone, backend, kind):  # noqa: F811
    params = parameters(2)
    optimizer = wrapped(kind, backend, params[:1], lr=0.1, schedule=StepLR(1, 0.5))
    optimizer.step()
    if kind == "ZeRO":
        optimizer.add_param_group({"params": params[1:], "lr": 0.2})
    else:
        optimizer.inner.add_param_group({"params": params[1:], "lr": 0.2})
        optimizer.param_groups.append(dict(optimizer.inner.param_groups[1]))
    optimizer.step()
    assert rates(inner_of(optimizer)) == [0.025, 0.1]


@COPYING
def test_a_state_loaded_into_the_handle_survives_the_copies(alone, backend, kind):  # noqa: F811
    optimizer = wrapped(kind, backend, parameters(), lr=0.1, schedule=StepLR(4, 0.5))
    other = FusedDecaySGD(parameters(), lr=0.1, schedule=StepLR(4, 0.5), backend=backend)
    for _ in range(3):
        other.step()
    optimizer.step()
    inner_of(optimizer).scheduler.load_state_dict(other.scheduler.state_dict())
    optimizer.step()
    assert inner_of(optimizer).scheduler.last_epoch == 4
    assert rates(optimizer) == [0.05]


def test_a_copy_of_wrapper_and_optimizer_keeps_the_handles_steps(backend):
    optimizer = CopyingWrapper(
        parameters(), fused(backend), lr=0.1, schedule=StepLR(1, 0.5), schedule_every=None
    )
    optimizer.step()
    optimizer.inner.scheduler.step()
    # torch copies no attributes of an optimizer, so not `inner`.
    for groups, inner in [
        copy.deepcopy((optimizer.param_groups, optimizer.inner)),
        (optimizer.param_groups, optimizer.inner),
    ]:
        copy_groups(groups, inner.param_groups)
        inner.step()
        assert rates(inner) == [0.05]


# -- plain data ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SCHEDULES, ids=str)
def test_a_group_without_its_parameters_is_json(backend, case):
    params = parameters(case.groups or 1)
    optimizer = FusedDecaySGD(
        [{"params": [p]} for p in params], lr=0.1, momentum=0.9, schedule=case.ours(),
        backend=backend,
    )  # fmt: skip
    optimizer.step()
    for group in optimizer.param_groups:
        plain = {key: value for key, value in group.items() if key != "params"}
        assert json.loads(json.dumps(plain))["lr"] == group["lr"]


def test_a_recorded_schedule_is_json_too(backend):
    class Own(lr_scheduler.LRScheduler):
        def get_lr(self):
            return [base / (1 + self.last_epoch) for base in self.base_lrs]

    theirs = torch.optim.SGD(parameters(), lr=0.1)
    optimizer, _ = fuse(theirs, Own(theirs), total_steps=20, backend=backend, schedule_every=1)
    optimizer.step()
    group = optimizer.param_groups[0]
    json.dumps({key: value for key, value in group.items() if key != "params"})
    resumed = copy.deepcopy(optimizer)
    for _ in range(5):
        optimizer.step(), resumed.step()
    assert rates(optimizer) == rates(resumed)


def test_a_copy_of_a_group_keeps_its_place(backend):
    optimizer = FusedDecaySGD(parameters(), lr=0.1, schedule=StepLR(2), backend=backend)
    optimizer.step()
    copied = dict(optimizer.param_groups[0])
    optimizer.step()
    assert copied["schedule"]["epoch"] == 1
    assert optimizer.param_groups[0]["schedule"]["epoch"] == 2


def test_a_group_put_back_by_hand_puts_the_schedule_back(backend):
    optimizer = FusedDecaySGD(parameters(), lr=0.1, schedule=StepLR(2, 0.5), backend=backend)
    optimizer.step()
    copied = dict(optimizer.param_groups[0])
    seen = [optimizer.step() or rates(optimizer) for _ in range(4)]
    optimizer.param_groups[0].update(copied)
    assert [optimizer.step() or rates(optimizer) for _ in range(4)] == seen
