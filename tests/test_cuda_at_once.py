"""Common steps on a GPU are one call of the extension; the others go by their phases."""

import pytest
import torch
from support.bits import assert_same_bits
from support.inside import program_of
from support.tape import assert_the_device_agrees, not_emulated
from support.twin import assert_same_state, leaf, numbers, rates

from lrfused import ExponentialLR, FusedDecaySGD, ReduceLROnPlateau
from lrfused.backends import cuda
from lrfused.backends.device import transfer

if why := not_emulated("cuda"):
    pytest.skip(f"cuda: {why}", allow_module_level=True)


class Phases(Exception):
    """A step that was not made at once."""


@pytest.fixture
def at_once(monkeypatch):
    """Return a function; after its call, a step that goes by its phases raises Phases."""

    def refuse(*_):
        raise Phases

    return lambda: monkeypatch.setattr(cuda.backend, "make_step", refuse)


def made(backend="cuda", sizes=(33, 7), dtype=torch.float32, **settings):
    settings = {"schedule": ExponentialLR(0.9), "momentum": 0.9, "lr": 0.1, **settings}
    if callable(settings["lr"]):
        settings["lr"] = settings["lr"]()
    return FusedDecaySGD(
        [leaf(numbers(n, dtype=dtype, seed=n)) for n in sizes], backend=backend, **settings
    )


def give(optimizer, seed):
    for g in optimizer.param_groups:
        for p in g["params"]:
            p.grad = numbers(*p.shape, dtype=p.dtype, seed=seed)


COMMON = {
    "scheduled": {},
    "without a schedule": {"schedule": None},
    "without momentum": {"momentum": 0.0},
    "capturable": {"capturable": True},
    "some steps to one of the schedule": {"schedule_every": 2},
    "by hand": {"schedule_every": None},
    "tensor rate": {"lr": lambda: torch.tensor(0.1)},  # each optimizer fills its own
    "masters": {"dtype": torch.bfloat16, "master_weights": True},
    "remainders": {"dtype": torch.bfloat16, "master_weights": "remainder"},
    "plateau": {"schedule": [ReduceLROnPlateau(patience=0, factor=0.5), ExponentialLR(0.9)]},
    "clipped": {"max_grad_norm": 0.5},
    "scaled": {"amp": "fused"},
    "scaled and clipped": {"amp": "fused", "max_grad_norm": 0.5},
    "many tensors": {"sizes": (3,) * 300},
    "beyond the argument": {"sizes": (3,) * 1000},
}


@pytest.mark.parametrize("case", COMMON)
def test_common_steps_are_made_at_once(at_once, case):
    ours, reference = made(**COMMON[case]), made("reference", **COMMON[case])
    for seed in range(6):
        if seed == 2:
            at_once()
        for optimizer in (ours, reference):
            give(optimizer, seed)
            if "scaled" in case:
                optimizer.grad_scale = torch.tensor(2.0)
                optimizer.found_inf = torch.tensor(float(seed == 3))
            before = [p._version for p in optimizer.param_groups[0]["params"]]
            optimizer.step()
            after = [p._version for p in optimizer.param_groups[0]["params"]]
            if optimizer is ours:
                assert all(now > then for now, then in zip(after, before, strict=True))
            if case == "plateau":
                optimizer.scheduler.step(torch.tensor(float(seed)))
            if case == "by hand":
                optimizer.scheduler.step()
        assert_same_state(ours, reference)
        assert ours.lr_used == reference.lr_used
        assert_same_bits(ours.grad_norm, reference.grad_norm)
        assert_the_device_agrees(program_of(ours))
    assert ours.lr_history() == reference.lr_history()


def test_steps_with_a_metric_in_flight_are_made_at_once(at_once, monkeypatch):
    landed = []
    monkeypatch.setattr(transfer.Flight, "landed", lambda self: bool(landed))
    ours, reference = (made(backend, **COMMON["plateau"]) for backend in ("cuda", "reference"))
    for seed in range(8):
        if seed == 2:
            at_once()
        for optimizer in (ours, reference):
            give(optimizer, seed)
            optimizer.step()
            if seed < 4:
                optimizer.scheduler.step(torch.tensor(float(seed)))
        for p, q in zip(*(o.param_groups[0]["params"] for o in (ours, reference)), strict=True):
            assert_same_bits(p, q)
        if seed == 5:
            assert rates(ours) != rates(reference), "nobody has waited"
            landed.append(True)
    assert_same_state(ours, reference)
    assert ours.lr_history() == reference.lr_history()
    assert_the_device_agrees(program_of(ours))


def test_a_step_that_is_refused_at_once_is_refused_as_any(at_once):
    optimizer = made()
    for seed in range(2):
        give(optimizer, seed)
        optimizer.step()
    optimizer.param_groups[0]["weight_decay"] = 1e39
    with pytest.raises(ValueError, match="weight_decay"):
        optimizer.step()
    optimizer.param_groups[0]["weight_decay"] = 0.0
    at_once()
    optimizer.step()


OTHERS = {
    "odd": lambda o: setattr(o.param_groups[0]["params"][0], "grad", numbers(66)[::2]),
    "no gradient at all": lambda o: o.zero_grad(),
    "scaled by a number": lambda o: setattr(o, "grad_scale", 2.0),
    "scaled in another dtype": lambda o: setattr(o, "found_inf", torch.tensor(0)),
    "written": lambda o: o.param_groups[0].update(lr=0.3),
    "new state": lambda o: o.state.clear(),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_steps_go_by_their_phases(at_once, case):
    optimizer = made()
    for seed in range(2):
        give(optimizer, seed)
        optimizer.step()
    OTHERS[case](optimizer)
    before = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]
    at_once()
    with pytest.raises(Phases):
        optimizer.step()
    for p, then in zip(optimizer.param_groups[0]["params"], before, strict=True):
        assert_same_bits(p, then)
    assert optimizer.scheduler.last_epoch == 2
