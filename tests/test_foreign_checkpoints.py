"""Checkpoints of other optimizers are refused, and those of every torch.optim.SGD are taken."""

import copy

import pytest
import torch
from support.bits import assert_same_bits
from support.twin import leaf, numbers, rates, sgd

from lrfused import FusedDecaySGD, StepLR

NAMES = {
    "Adam": "Adam",
    "AdamW": "AdamW",
    "RMSprop": "RMSprop",
    "Adagrad": "Adagrad",
    "Rprop": "Rprop",
    "NAdam": "NAdam",
    "Adamax": "Adamax",
    "RAdam": "RAdam",
    "Adadelta": "Adadelta",
    "ASGD": "ASGD",
    "Adafactor": "Adafactor",
}


def trained(kind, **kwargs):
    params = [leaf(numbers(33)), leaf(numbers(9, seed=1))]
    optimizer = kind([{"params": [params[0]]}, {"params": [params[1]], "lr": 0.3}], **kwargs)
    for step in range(3):
        for i, p in enumerate(params):
            p.grad = numbers(*p.shape, seed=10 * step + i)
        optimizer.step()
    return optimizer


def kept(optimizer):
    """Return all that a refusal must leave as it is."""
    return copy.deepcopy((optimizer.state_dict(), [g["params"] for g in optimizer.param_groups]))


def assert_same(one, other):
    if isinstance(one, torch.Tensor):
        assert_same_bits(one, other)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        assert one == other


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("override", [False, True])
def test_a_checkpoint_of_another_optimizer_is_refused(name, override):
    saved = trained(getattr(torch.optim, name), lr=0.2).state_dict()
    ours = trained(FusedDecaySGD, lr=0.1, momentum=0.9, schedule=StepLR(2))
    before = kept(ours)
    with pytest.raises(ValueError, match=f"that of {NAMES[name]}.*, not of SGD: param_groups.0. "):
        ours.load_state_dict(saved, override=override)
    assert_same(kept(ours), before)


def test_an_unknown_optimizers_checkpoint_is_refused_by_its_keys():
    ours = trained(FusedDecaySGD, lr=0.1, momentum=0.9)
    saved = ours.state_dict()
    for group in saved["param_groups"]:
        del group["dampening"], group["momentum"]
        group["trust"] = 0.001
    with pytest.raises(
        ValueError, match=r"another optimizer.*no 'momentum', 'dampening', but .*'trust'"
    ):
        ours.load_state_dict(saved)


# The entries in a group of torch.optim.SGD, by the first release whose groups have more.
ADDED = ["maximize", "foreach", "differentiable", "fused"]


@pytest.mark.parametrize("count", range(len(ADDED) + 1))
def test_checkpoints_of_old_sgds_load(count):
    theirs = trained(sgd, lr=0.1, momentum=0.9, weight_decay=0.01)
    saved = copy.deepcopy(theirs.state_dict())
    for group in saved["param_groups"]:
        for key in ADDED[count:]:
            del group[key]
    ours = trained(FusedDecaySGD, lr=0.5)
    ours.load_state_dict(saved)
    assert rates(ours) == rates(theirs)
    for mine, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert mine["maximize"] is False
        for p, q in zip(mine["params"], other["params"], strict=True):
            p.data.copy_(q)
            p.grad, q.grad = numbers(*p.shape, seed=7), numbers(*p.shape, seed=7)
    ours.step()
    theirs.step()
    for mine, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        for p, q in zip(mine["params"], other["params"], strict=True):
            assert_same_bits(p, q)


def test_settings_of_a_wrapper_beside_sgds_own_are_taken():
    theirs = trained(sgd, lr=0.1, momentum=0.9)
    saved = theirs.state_dict()
    for group in saved["param_groups"]:
        group.update(rho=0.05, eps=1e-8)
    ours = trained(FusedDecaySGD, lr=0.5)
    ours.load_state_dict(saved)
    assert ours.param_groups[0]["rho"] == 0.05
