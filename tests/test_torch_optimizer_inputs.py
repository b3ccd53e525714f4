"""torch's own test inputs of SGD: what torch checks with them, with torch.optim.SGD beside it."""

import copy
import importlib
import io
import sys
from unittest import mock

import pytest
import torch
from support.bits import assert_same_bits, assert_same_rates
from support.loops import is_plateau
from support.twin import assert_same_state, leaf, numbers, rates, sgd
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import lrfused
from lrfused import FusedDecaySGD

pytestmark = pytest.mark.backends(
    "host",
    reason="the interface is the same on every backend, and test_update.py compares their bits",
)


def _torchs_tables():
    """Import the tables without the machinery beside them, which changes settings of all tests."""
    names = ("common_device_type", "common_methods_invocations", "common_utils")
    stand_in = mock.MagicMock(_TestParametrizer=object)
    with mock.patch.dict(sys.modules, {f"torch.testing._internal.{n}": stand_in for n in names}):
        return importlib.import_module("torch.testing._internal.common_optimizers")


TABLES = _torchs_tables()
SGD = next(info for info in TABLES.optim_db if info.optim_cls is torch.optim.SGD)
INPUTS = [each.desc for each in SGD.optim_inputs_func("cpu")]
FLAGS = [flag for flag in SGD.supported_impls if flag != "differentiable"]
ERRORS = SGD.optim_error_inputs_func("cpu", torch.float32)


def kwargs_of(desc):
    """Make the arguments of one input anew: torch's schedulers write into a tensor rate."""
    return next(each.kwargs for each in SGD.optim_inputs_func("cpu") if each.desc == desc)


def in_doubles(kwargs):
    """Make a tensor rate the double it stands for, in which schedules are exact."""
    return {**kwargs, "lr": float(kwargs["lr"])} if "lr" in kwargs else kwargs


def schedulers_name(makes):
    optimizer = torch.optim.SGD([torch.ones(1)])
    return "+".join(type(make(optimizer)).__name__ for make in makes)


def test_torchs_tables_hold_what_they_held():
    assert {"default", "tensor lr", "momentum", "maximize", "nesterov"} <= set(INPUTS)
    assert set(FLAGS) == {"foreach", "fused"}
    assert len(SGD.scheduler_inputs) >= 7
    assert len(ERRORS) >= 7
    for error in ERRORS:
        assert error.error_on is TABLES.OptimizerErrorEnum.CONSTRUCTION_ERROR


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.optimizer_error_input.desc)
def test_what_torch_refuses_is_refused_in_its_words(backend, error):
    given = error.optimizer_error_input
    warns = issubclass(error.error_type, Warning)
    caught = pytest.warns if warns else pytest.raises
    said = []
    for make in (sgd, lambda *a, **k: FusedDecaySGD(*a, backend=backend, **k)):
        with caught(error.error_type, match=error.error_regex) as got:
            make(given.params, **given.kwargs)
        said.append(str(got[0].message if warns else got.value))
    assert said[0] == said[1]


class Linear:
    """A regression that torch's tests descend: one weight, one bias, a closure."""

    def __init__(self, make, contiguous=True):
        weight, bias = numbers(10, 5, 2, seed=1)[..., 0], numbers(10, 2, seed=2)[..., 0]
        if contiguous:
            weight, bias = weight.contiguous(), bias.contiguous()
        self.params = [leaf(weight), leaf(bias)]
        self.input = numbers(5, seed=3)
        self.opt = make(self.params)
        self.schedulers = []

    def loss(self):
        weight, bias = self.params
        weight.grad = bias.grad = None
        loss = (weight.mv(self.input) + bias).pow(2).sum()
        loss.backward()
        return loss

    def step(self):
        loss = self.opt.step(self.loss).detach()
        for scheduler, fed in self.schedulers:
            scheduler.step(*([loss] if fed else []))
        return loss


def ours(kwargs, backend):
    return lambda params: FusedDecaySGD(params, backend=backend, **kwargs)


def torchs(kwargs):
    return lambda params: sgd(params, **kwargs)


def with_schedulers(run, makes):
    run.schedulers = [(s, is_plateau(s)) for s in (make(run.opt) for make in makes)]
    return run


def run_beside(mine, theirs, steps=20):
    """Descend both and compare every loss and all that is kept; both go where they should."""
    first = theirs.loss().item()
    for step in range(steps):
        assert_same_bits(mine.step(), theirs.step(), f"loss of step {step}")
        assert_same_state(mine.opt, theirs.opt, f"after step {step},")
    last = theirs.loss().item()
    assert last > first if theirs.opt.param_groups[0]["maximize"] else last < first


@pytest.mark.parametrize("contiguous", [True, False], ids=["contiguous", "strided"])
@pytest.mark.parametrize("desc", INPUTS)
def test_it_goes_the_same_way(backend, desc, contiguous):
    mine = Linear(ours(kwargs_of(desc), backend), contiguous)
    run_beside(mine, Linear(torchs(in_doubles(kwargs_of(desc))), contiguous))


@pytest.mark.parametrize("way", ["attached", "fused"])
@pytest.mark.parametrize("makes", SGD.scheduler_inputs, ids=schedulers_name)
@pytest.mark.parametrize("desc", INPUTS)
def test_it_goes_the_same_way_with_schedulers(backend, desc, makes, way):
    kwargs = in_doubles(kwargs_of(desc))
    theirs = with_schedulers(Linear(torchs(kwargs)), makes)
    if way == "attached":
        mine = with_schedulers(Linear(ours(kwargs, backend)), makes)
    else:
        mine = with_schedulers(Linear(torchs(kwargs)), makes)
        schedulers = [scheduler for scheduler, _ in mine.schedulers]
        mine.opt, handle = lrfused.fuse(mine.opt, schedulers, backend=backend)
        mine.schedulers = [(handle, fed) for fed in sorted({fed for _, fed in mine.schedulers})]
    run_beside(mine, theirs)


@pytest.mark.parametrize("makes", SGD.scheduler_inputs, ids=schedulers_name)
def test_groups_go_the_same_way_with_schedulers(backend, makes):
    def groups(params):
        return [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.01}]

    mine = Linear(lambda params: FusedDecaySGD(groups(params), backend=backend))
    theirs = Linear(lambda params: sgd(groups(params)))
    run_beside(with_schedulers(mine, makes), with_schedulers(theirs, makes))


@pytest.mark.parametrize("desc", INPUTS)
def test_groups_of_their_own_decay_and_rate(backend, desc):
    def groups(params, kwargs):
        other = leaf(numbers(2, seed=4))
        other.grad = numbers(2, seed=5)
        first = {"params": [params[0]], "lr": 1e-3, **kwargs}
        return [first, {**first, "params": [params[1]], "weight_decay": 0.0}, {"params": [other]}]

    kwargs = kwargs_of(desc)
    mine = Linear(lambda ps: FusedDecaySGD(groups(ps, kwargs), lr=1e-28, backend=backend))
    theirs = Linear(lambda ps: sgd(groups(ps, in_doubles(kwargs)), lr=1e-28))
    run_beside(mine, theirs)
    assert_same_bits(mine.opt.param_groups[2]["params"][0], numbers(2, seed=4))


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("desc", INPUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_model_with_a_scalar_and_an_iteration_without_gradients(backend, desc, dtype, flag):
    def run(make):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            layers = [nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1), nn.Sigmoid()]
            model = nn.Sequential(*layers).to(dtype)
        scalar = leaf(numbers(dtype=dtype, seed=7))
        scalar.grad = numbers(dtype=dtype, seed=8)
        optimizer = make([*model.parameters(), scalar])
        for i in range(7):
            optimizer.zero_grad()
            if i != 3:
                model(numbers(3, 2, dtype=dtype)).sum().backward()
            optimizer.step()
        return optimizer

    mine = run(ours({**kwargs_of(desc), flag: True}, backend))
    theirs = run(torchs(in_doubles(kwargs_of(desc))))
    assert_same_state(mine, theirs)
    assert mine.state_dict()["state"].keys() == theirs.state_dict()["state"].keys()


@pytest.mark.parametrize("desc", INPUTS)
def test_a_differentiable_step_is_refused(backend, desc):
    with pytest.raises(ValueError, match=r"differentiable=True.*torch\.optim\.SGD"):
        FusedDecaySGD([leaf(numbers(3))], backend=backend, differentiable=True, **kwargs_of(desc))


@pytest.mark.parametrize("desc", INPUTS)
def test_a_step_without_gradients_does_nothing_but_call_the_closure(backend, desc):
    params = [numbers(2, 3, seed=i) for i in range(2)]  # that require none
    optimizer = FusedDecaySGD(params, backend=backend, **kwargs_of(desc))
    given = torch.tensor([1.0])
    assert optimizer.step(lambda: given) is given
    for i, param in enumerate(params):
        assert_same_bits(param, numbers(2, 3, seed=i))
    assert not optimizer.state


@pytest.mark.parametrize("desc", INPUTS)
def test_gradients_of_zero_do_what_they_do_in_torch(backend, desc):
    def stepped(make):
        param = leaf(numbers(5, 1))
        param.grad = torch.zeros(5, 1)
        optimizer = make([param])
        optimizer.step()
        return optimizer

    kwargs = kwargs_of(desc)
    mine, theirs = stepped(ours(kwargs, backend)), stepped(torchs(in_doubles(kwargs)))
    assert_same_state(mine, theirs)
    if not kwargs.get("weight_decay"):
        assert_same_bits(mine.param_groups[0]["params"][0], numbers(5, 1))


@pytest.mark.parametrize("desc", INPUTS)
def test_it_is_printed_with_its_settings(backend, desc):
    text = repr(FusedDecaySGD([leaf(numbers(3))], backend=backend, **kwargs_of(desc)))
    for key, value in in_doubles(kwargs_of(desc)).items():
        assert f"\n    {key}: {value}\n" in text


def named(params, names):
    return [(f"name{i}", p) for i, p in enumerate(params)] if names else params


def without_names(state):
    kept = copy.deepcopy(state)
    for group in kept["param_groups"]:
        group.pop("param_names", None)
    return kept


def assert_equal_states(got, want):
    assert got["param_groups"] == want["param_groups"]
    assert got["state"].keys() == want["state"].keys()
    for key, entry in want["state"].items():
        assert entry.keys() == got["state"][key].keys()
        for name, value in entry.items():
            assert_same_bits(got["state"][key][name], value, name)


@pytest.mark.parametrize(("names", "others"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("desc", INPUTS)
def test_a_state_loaded_goes_on_with_the_same_bits(backend, desc, names, others):
    kwargs = kwargs_of(desc)
    first = Linear(lambda ps: FusedDecaySGD(named(ps, names), backend=backend, **kwargs))
    for _ in range(10):
        first.step()
    again = Linear(lambda ps: FusedDecaySGD(named(ps, others), backend=backend, **kwargs))
    for mine, other in zip(again.params, first.params, strict=True):
        mine.data.copy_(other)
    again.opt.load_state_dict(copy.deepcopy(first.opt.state_dict()))
    if names or others:
        assert again.opt.state_dict()["param_groups"][0]["param_names"] == ["name0", "name1"]
    for _ in range(10):
        assert_same_bits(again.step(), first.step())
        assert_same_state(again.opt, first.opt)
    states = [without_names(each.opt.state_dict()) for each in (again, first)]
    assert_equal_states(*states)


def test_groups_put_in_by_hand_are_refused(backend):
    optimizer = FusedDecaySGD([leaf(numbers(3))], backend=backend)
    optimizer.param_groups.extend(optimizer.param_groups)  # torch's state_dict lets this pass
    with pytest.raises(ValueError, match="param_groups has one group twice"):
        optimizer.state_dict()


@pytest.mark.parametrize("desc", INPUTS)
def test_a_state_from_before_a_setting_existed_loads(backend, desc):
    kwargs = kwargs_of(desc)
    first, theirs = Linear(ours(kwargs, backend)), Linear(torchs(in_doubles(kwargs)))
    run_beside(first, theirs, steps=3)
    for each in (first, theirs):
        state = copy.deepcopy(each.opt.state_dict())
        for group in state["param_groups"]:
            for flag in SGD.not_og_supported_flags:
                group.pop(flag, None)
        each.opt.load_state_dict(state)
        for group in each.opt.param_groups:
            assert group["maximize"] is False
        each.step()
    assert_same_state(first.opt, theirs.opt)


@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize("desc", INPUTS)
def test_a_state_is_equal_after_a_file_held_it(backend, desc, names):
    kwargs = kwargs_of(desc)
    run = Linear(lambda ps: FusedDecaySGD(named(ps, names), backend=backend, **kwargs))
    for _ in range(3):
        run.step()
    file, state = io.BytesIO(), run.opt.state_dict()
    torch.save(state, file)
    file.seek(0)
    assert_equal_states(torch.load(file, weights_only=True), state)


def public(optimizer):
    return {name for name in vars(optimizer) if not name.startswith("_")}


@pytest.mark.parametrize("desc", INPUTS)
def test_a_copy_has_all_public_attributes(backend, desc):
    run = Linear(ours(kwargs_of(desc), backend))
    run.step()
    assert public(copy.deepcopy(run.opt)) == public(run.opt)
    assert public(run.opt) == public(torch.optim.SGD(run.params))


def test_hooks_around_a_state_may_add_to_it(backend):
    optimizer = FusedDecaySGD([leaf(numbers(2, 3))], lr=0.1, backend=backend)

    def add(hooked):
        hooked.state["test"] = 1

    def take_out(_, state):
        return {**state, "test": state["state"].pop("test")}

    optimizer.register_state_dict_pre_hook(add)
    state = optimizer.state_dict()
    assert state["state"]["test"] == 1
    optimizer.load_state_dict(state)
    optimizer.register_state_dict_post_hook(take_out)
    state = optimizer.state_dict()
    assert state["test"] == 1
    assert "test" not in state["state"]


def test_hooks_around_loading_run_in_their_order(backend):
    optimizer = FusedDecaySGD([leaf(numbers(2, 3))], lr=0.1, backend=backend)
    state, seen = optimizer.state_dict(), []

    def write(_, given):
        given["param_groups"][0]["lr"] = 0.002

    def replace(_, given):
        given = copy.deepcopy(given)
        given["param_groups"][0]["lr"] = 0.003
        return given

    optimizer.register_load_state_dict_post_hook(lambda hooked: seen.extend(rates(hooked)))
    optimizer.register_load_state_dict_pre_hook(write)
    optimizer.load_state_dict(state)
    removable = optimizer.register_load_state_dict_pre_hook(replace, prepend=True)
    optimizer.load_state_dict(state)  # write comes last
    removable.remove()
    optimizer.register_load_state_dict_pre_hook(replace)
    optimizer.load_state_dict(state)
    assert_same_rates(seen, [0.002, 0.002, 0.003])


def test_hooks_of_every_optimizer_enclose_its_own(backend):
    optimizer, calls = FusedDecaySGD([leaf(numbers(3))], backend=backend), []

    def note(name):
        return lambda *_: calls.append(name)

    handles = [
        register_optimizer_step_pre_hook(note("all before")),
        register_optimizer_step_post_hook(note("all after")),
        optimizer.register_step_pre_hook(note("before")),
        optimizer.register_step_post_hook(note("after")),
    ]
    try:
        optimizer.step()
        assert calls == ["all before", "before", "after", "all after"]
    finally:
        for handle in handles:
            handle.remove()
    optimizer.step()
    assert len(calls) == 4
