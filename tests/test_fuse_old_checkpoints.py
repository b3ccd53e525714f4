"""Schedulers with the attributes of other versions of torch, from pickles and loaded states."""

import copy
import functools
import io

import pytest
import torch
from support.fused import CLASSES, Pair, optimizer_of, pair_of
from torch.optim import lr_scheduler

from lrfused import fuse
from lrfused.schedules import versions


def reads_plain(optimizer):
    """Save and load the optimizer as users do, with weights_only."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    optimizer.load_state_dict(torch.load(file, weights_only=True))


@pytest.mark.parametrize("verbose", [False, True, "deprecated"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_state_that_has_verbose_goes_on(name, verbose):
    def load(s):
        state = s.state_dict()
        state["verbose"] = verbose
        for inner in state.get("_schedulers", ()):
            inner["verbose"] = verbose
        s.load_state_dict(state)

    pair = pair_of(name, load)
    pair.run(8)
    reads_plain(pair.ours)
    pair.run(8)


FILLED = ("_step_count", "_last_lr", "base_lrs", "_is_initial", "_get_lr_called_within_step")


@pytest.mark.parametrize("missing", FILLED)
@pytest.mark.parametrize("name", [n for n in CLASSES if n not in ("SequentialLR",)])
def test_a_pickle_without_a_new_attribute_goes_on(name, missing):
    """Where this torch could not go on without it, it is compared with a whole one."""
    theirs, ours = optimizer_of(), optimizer_of()
    expected, scheduler = CLASSES[name](theirs), CLASSES[name](ours)
    for one in (scheduler, *getattr(scheduler, "_schedulers", ())):
        vars(one).pop(missing, None)
    ours, handle = fuse(ours, scheduler)
    for _ in range(12):
        theirs.step()
        expected.step()
        ours.step()
        handle.step()
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    reads_plain(ours)


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("lacks", [True, False])
def test_a_one_cycle_of_torch_2_0(strategy, lacks):
    def age(s):
        s.anneal_func = getattr(lr_scheduler.OneCycleLR, f"_annealing_{strategy}")
        if lacks:
            del s._anneal_func_type

    def make(o):
        return lr_scheduler.OneCycleLR(o, 0.5, total_steps=30, anneal_strategy=strategy)

    pair = Pair(make, age)
    reads_plain(pair.ours)
    pair.run(40)


@pytest.mark.parametrize(("saved", "match"), [("cos", None), ("linear", "'linear', this opt")])
def test_the_handle_loads_a_one_cycle_state_of_torch_2_0(saved, match):
    pair = pair_of("OneCycleLR")
    state = pair.scheduler.state_dict()
    for key in ("_anneal_func_type", "use_beta1", "_schedule_phases"):
        del state[key]
    state["anneal_func"] = getattr(lr_scheduler.OneCycleLR, f"_annealing_{saved}")
    if match is None:
        pair.handle.load_state_dict(state)
    else:
        with pytest.raises(ValueError, match=match):
            pair.handle.load_state_dict(state)
        pair.handle.load_state_dict(state, override=True)
        pair.scheduler._anneal_func_type = saved
    pair.run(10)
    reads_plain(pair.ours)


def test_a_one_cycle_of_torch_1_3():
    """With the lengths that are phases now."""
    pair = pair_of("OneCycleLR", lambda s: vars(s).update(step_size_up=17.0, step_size_down=41.0))
    pair.run(30)


def test_a_one_cycle_that_anneals_by_a_function_is_recorded():
    def age(s):
        del s._anneal_func_type
        s.anneal_func = lambda start, end, pct: start + (end - start) * pct**2

    with pytest.raises(TypeError, match="does not know OneCycleLR: pass fuse"):
        pair_of("OneCycleLR", age)
    pair_of("OneCycleLR", age, total_steps=30).run(30)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_a_cyclic_of_torch_1(mode):
    """With its function as an attribute, or by a weak reference."""

    def make(o):
        return lr_scheduler.CyclicLR(o, 0.01, 0.1, 4, mode=mode, gamma=0.99)

    def age(s):
        s.scale_fn = s._scale_fn_ref
        if mode == "exp_range":
            s.scale_fn = functools.partial(s._exp_range_scale_fn, s.gamma)
        del s._scale_fn_custom, s._scale_fn_ref

    pair = Pair(make, age)
    reads_plain(pair.ours)
    pair.run(20)


def test_a_cyclic_with_a_function_of_its_own_as_an_attribute():
    optimizer = optimizer_of()
    scheduler = lr_scheduler.CyclicLR(optimizer, 0.1, 1.0, 4, cycle_momentum=False)
    scheduler.scale_fn = lambda cycle: 0.5**cycle
    del scheduler._scale_fn_custom, scheduler._scale_fn_ref
    optimizer, handle = fuse(optimizer, scheduler)
    optimizer.step()
    handle.step()
    assert optimizer.param_groups[0]["lr"] == 0.1 + (1.0 - 0.1) * 0.25 * 0.5
    reads_plain(optimizer)


def test_milestones_of_torch_1_2_are_a_list():
    theirs, ours = optimizer_of(), optimizer_of()
    expected, scheduler = (lr_scheduler.MultiStepLR(o, [2, 4, 4], 0.5) for o in (theirs, ours))
    scheduler.milestones = [2, 4, 4]
    ours, handle = fuse(ours, scheduler)
    for _ in range(6):
        theirs.step()
        expected.step()
        ours.step()
        handle.step()
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]


def test_a_plateau_of_torch_1():
    theirs, ours = optimizer_of(), optimizer_of()
    expected, scheduler = (
        lr_scheduler.ReduceLROnPlateau(o, patience=1, cooldown=1) for o in (theirs, ours)
    )
    del scheduler.default_min_lr, scheduler.mode_worse, scheduler._last_lr
    scheduler.verbose = False
    scheduler.is_better = functools.partial(scheduler._is_better)  # torch 1.0
    ours, handle = fuse(ours, scheduler)
    for _ in range(12):
        expected.step(1.0)
        handle.step(1.0)
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    reads_plain(ours)


@pytest.mark.parametrize("name", [n for n in CLASSES if n != "ChainedScheduler"])
def test_a_missing_setting_is_named(name):
    optimizer = optimizer_of()
    scheduler = CLASSES[name](optimizer)
    for key in (*versions.NEEDED[type(scheduler).__name__], "last_epoch"):
        broken = copy.copy(scheduler)
        delattr(broken, key)
        with pytest.raises(ValueError, match=f"{type(scheduler).__name__} has no {key}, so torch"):
            fuse(optimizer, broken)


@pytest.mark.parametrize("name", [n for n in CLASSES if n != "ChainedScheduler"])
def test_every_setting_of_torchs_is_needed_or_filled_in(name):
    """A new version of torch that adds an attribute fails here."""
    scheduler = CLASSES[name](optimizer_of())
    needed = versions.NEEDED[type(scheduler).__name__]
    filled = {*FILLED, "optimizer", "_schedulers", "_scale_fn_custom", "_scale_fn_ref",
              "scale_mode", "use_beta1", "base_momentums", "max_momentums"}  # fmt: skip
    assert set(vars(scheduler)) - filled == {*needed, "last_epoch"}


def test_an_unknown_word_for_the_annealing_fails_as_torchs_does():
    assert pair_of("OneCycleLR", lambda s: vars(s).update(_anneal_func_type="cubic")).run(3) == 1
