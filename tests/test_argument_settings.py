"""Numbers of numpy, torch and Python as the optimizer's own settings, and in its checkpoints."""

import copy
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from support.arguments import Three, assert_loads_its_own, products, reloaded, trained
from support.loops import groups_of
from support.twin import rates, sgd
from torch.optim import lr_scheduler

import lrfused
from lrfused import FusedDecaySGD, fuse

HYPER = {"lr": 0.5, "momentum": 0.25, "dampening": 0.0, "weight_decay": 0.125}
HYPERS = products({"hyper": {**HYPER, "nesterov": True, "maximize": True}})


@pytest.mark.parametrize(("kind", "name", "convert"), HYPERS)
def test_settings_are_plain_wherever_they_are_given(kind, name, convert):
    plain = {**HYPER, "nesterov": True, "maximize": True}
    given = {**plain, name: convert(plain[name])}

    def make():
        optimizer = FusedDecaySGD(
            groups_of([0.5, 0.5], **{name: convert(plain[name])}),
            **given,
            schedule=lrfused.StepLR(2),
        )
        optimizer.add_param_group(groups_of([0.5], **{name: convert(plain[name])})[0])
        return optimizer, None

    optimizer = make()[0]
    for group in [optimizer.defaults, *optimizer.param_groups]:
        if name == "lr" and isinstance(given["lr"], torch.Tensor):
            assert isinstance(group["lr"], torch.Tensor)  # it stays the user's
        else:
            assert type(group[name]) in (bool, int, float)
        assert group[name] == plain[name]
    optimizer.param_groups[0][name] = convert(plain[name])  # written later
    for group in reloaded(optimizer.state_dict())["param_groups"]:
        assert type(group[name]) in (bool, int, float)
    assert_loads_its_own(make)


@pytest.mark.parametrize("name", HYPER)
@pytest.mark.parametrize("given", ["0.1", Decimal("0.1"), 1j, None])
def test_a_setting_that_is_no_number_is_refused_at_construction(name, given):
    with pytest.raises(TypeError, match=f"{name} must be one real number, got"):
        FusedDecaySGD(groups_of([0.5]), **{**HYPER, name: given})
    own = rf"param_groups\[0\]\['{name}'\] must be one real number, got"
    with pytest.raises(TypeError, match=own):
        FusedDecaySGD([{**groups_of([0.5])[0], name: given}])
    optimizer = FusedDecaySGD(groups_of([0.5]))
    with pytest.raises(TypeError, match=own.replace("0", "1", 1)):
        optimizer.add_param_group({**groups_of([0.5])[0], name: given})
    assert len(optimizer.param_groups) == 1


def test_checkpoints_with_numpy_numbers_load():
    ours = FusedDecaySGD(groups_of([0.5, 0.25]), schedule=lrfused.CyclicLR(0.125, 0.5, 3))
    trained(ours, None)
    saved = copy.deepcopy(ours.state_dict())
    for group in saved["param_groups"]:
        group.update(lr=np.float64(group["lr"]), momentum=np.float32(0.5), nesterov=np.False_)
        for state in group["schedule"]["schedulers"]:
            state["base_lrs"] = np.array(state["base_lrs"])
            state["max_lrs"] = torch.tensor(state["max_lrs"])
            state["last_epoch"] = np.int64(state["last_epoch"])
    fresh = FusedDecaySGD(groups_of([0.5, 0.25]), schedule=lrfused.CyclicLR(0.125, 0.5, 3))
    fresh.load_state_dict(saved)
    assert reloaded(fresh.state_dict())["param_groups"] == fresh.state_dict()["param_groups"]
    with_plain = [group["lr"] for group in fresh.param_groups]
    assert with_plain == rates(ours)


def test_integers_are_integers_whoever_made_them():
    for three in (np.int64(3), np.array(3), torch.tensor(3), Three.THREE, Fraction(3)):
        ours = FusedDecaySGD(groups_of([0.5]), schedule=lrfused.StepLR(1), schedule_every=three)
        for _ in range(3):
            ours.step()
        assert rates(ours) == [0.05]

        class Unknown(lr_scheduler.LRScheduler):
            def get_lr(self):
                return [base / (1 + self.last_epoch) for base in self.base_lrs]

        optimizer = sgd(groups_of([0.5]), lr=0.5)
        fused, handle = fuse(optimizer, Unknown(optimizer), total_steps=three)
        trained(fused, handle, steps=3)
        with pytest.raises(ValueError, match="total_steps=3"):
            handle.step()
