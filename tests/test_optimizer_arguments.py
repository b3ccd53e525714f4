"""Bad arguments, parameters and groups: FusedDecaySGD refuses them in torch's words."""

import pytest
import torch
from cases import with_lr
from support.one import give
from support.twin import leaf, numbers, sgd

from lrfused import FusedDecaySGD

pytestmark = pytest.mark.backends(
    "host",
    reason="the interface is the same on every backend, and test_update.py compares their bits",
)

BAD = {
    "lr": {"lr": -0.1},
    "lr-int": {"lr": -1},
    "lr-tensor": {"lr": torch.tensor(-0.5)},
    "lr-vector": {"lr": torch.tensor([0.1, 0.2])},
    "momentum": {"momentum": -0.9},
    "weight_decay": {"weight_decay": -0.01},
    "nesterov": {"nesterov": True},
    "nesterov-dampening": {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
}


@pytest.mark.parametrize("kwargs", BAD.values(), ids=BAD)
def test_bad_arguments_are_refused_in_torchs_words(backend, kwargs):
    with pytest.raises(ValueError, match=r".+") as theirs:
        sgd([leaf(numbers(3))], **with_lr(kwargs))
    with pytest.raises(ValueError, match=r".+") as ours:
        FusedDecaySGD([leaf(numbers(3))], backend=backend, **with_lr(kwargs))
    assert str(ours.value) == str(theirs.value)


BAD_PARAMS = {
    "tensor": lambda: torch.ones(3),
    "empty": list,
    "number": lambda: [3],
    "set": lambda: [{"params": {leaf(numbers(3))}}],
    "no-leaf": lambda: [leaf(numbers(3)) * 2],
    "half-named": lambda: [("a", leaf(numbers(3))), leaf(numbers(3))],
}


@pytest.mark.parametrize("make", BAD_PARAMS.values(), ids=BAD_PARAMS)
def test_bad_parameters_are_refused_in_torchs_words(backend, make):
    with pytest.raises((TypeError, ValueError)) as theirs:
        sgd(make(), lr=0.1)
    with pytest.raises(theirs.type) as ours:
        FusedDecaySGD(make(), lr=0.1, backend=backend)
    assert str(ours.value) == str(theirs.value)


def test_bad_groups_added_are_refused_in_torchs_words(backend):
    param = leaf(numbers(3))

    def bad_groups():
        yield param
        yield {"params": param}
        yield {"params": {leaf(numbers(3))}}
        yield {"params": [3]}
        yield {"params": [param * 2]}
        yield {"params": [("name", leaf(numbers(3)))]}

    ours, theirs = FusedDecaySGD([param], lr=0.1, backend=backend), sgd([param], lr=0.1)
    for group, again in zip(bad_groups(), bad_groups(), strict=True):
        with pytest.raises((TypeError, ValueError)) as wanted:
            theirs.add_param_group(group)
        with pytest.raises(wanted.type) as got:
            ours.add_param_group(again)
        assert str(got.value) == str(wanted.value)
        assert len(ours.param_groups) == 1
    give(ours)
    ours.step()
    theirs.step()
