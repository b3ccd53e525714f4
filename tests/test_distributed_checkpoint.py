"""torch.distributed.checkpoint: it takes everything along, and its own step changes nothing."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from cases import HYPER as HYPERS
from cases import SCHEDULES, with_lr
from support.bits import assert_same_bits
from support.distributed import (
    HYPER,
    Loops,
    alone,  # noqa: F401, a fixture
    assert_same_run,
    backward,
    local,
    network,
    on_ranks,
    parameters,
)
from support.twin import assert_same_state, assert_unchanged, momentum, numbers, rates, snapshot
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import lr_scheduler

from lrfused import FusedDecaySGD, LambdaLR, MultiStepLR, StepLR

OPTIONS = {
    "sharded": StateDictOptions(),
    "flat": StateDictOptions(flatten_optimizer_state_dict=True),
    "full": StateDictOptions(full_state_dict=True),
}


def save(path, model, optimizer, options=None):
    state = {
        "model": get_model_state_dict(model, options=options),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=options),
    }
    dcp.save(state, checkpoint_id=path)


def load(path, model, optimizer, options=None, **kwargs):
    state = {
        "model": get_model_state_dict(model, options=options),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=options),
    }
    dcp.load(state, checkpoint_id=path, **kwargs)
    set_model_state_dict(model, state["model"], options=options)
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=options)


def resharding_loops():
    return Loops(
        lambda: network(shard=True),
        MultiStepLR([2, 4, 4], gamma=0.5),
        lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [2, 4, 4], gamma=0.5),
    )


def whole(optimizer):
    return [t.full_tensor() for p in parameters(optimizer) for t in (p, momentum(optimizer, p))]


def train_and_save(path):
    loops = resharding_loops()
    loops.run(3)
    save(f"{path}/ours", loops.models[0], loops.opt)
    save(f"{path}/theirs", loops.models[1], loops.oracle)
    tensors = whole(loops.opt)
    if dist.get_rank() == 0:
        torch.save({"tensors": tensors, "scheduler": loops.scheduler.state_dict()}, f"{path}/seen")


def load_and_train(path):
    loops = resharding_loops()
    load(f"{path}/ours", loops.models[0], loops.opt)
    load(f"{path}/theirs", loops.models[1], loops.oracle)
    seen = torch.load(f"{path}/seen", weights_only=False)
    loops.scheduler.load_state_dict(seen["scheduler"])
    for got, want in zip(whole(loops.opt), seen["tensors"], strict=True):
        assert_same_bits(got, want)
    assert loops.opt.scheduler.last_epoch == 3
    loops.steps = 3
    loops.check()
    loops.run(3)


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(before, after, tmp_path):
    on_ranks(before, train_and_save, str(tmp_path))
    on_ranks(after, load_and_train, str(tmp_path))


def build(schedule=None, optimizer=FusedDecaySGD, shard=True, **hyper):
    model = network(shard=shard)
    extra = {"foreach": False} if optimizer is torch.optim.SGD else {"schedule": schedule}
    return model, optimizer(model.parameters(), **{**HYPER, **hyper}, **extra)


def train(model, optimizer, steps, scheduler=None):
    for step in steps:
        backward(model, step)
        optimizer.step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step()


# One of each kind, and those with something empty or with integer keys.
KINDS = {case.kind: case for case in SCHEDULES if case.groups != 2}
ODD = [c for c in SCHEDULES if c.kind == "MultiStepLR" or c.name == "SequentialLR-alone"]
PICKED = {case.name: case for case in [*KINDS.values(), *ODD]}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("case", PICKED.values(), ids=str)
def test_every_schedule_comes_back(case, options, tmp_path):
    model, saved = build(case.ours())
    train(model, saved, range(3))
    if case.is_plateau:
        saved.scheduler.step(1.0)
    save(tmp_path, model, saved, options)
    other, loaded = build(case.ours())
    load(tmp_path, other, loaded, options)
    assert loaded.scheduler.state_dict() == saved.scheduler.state_dict()
    assert_same_run(loaded, saved, "loaded")
    for each, optimizer in ((model, saved), (other, loaded)):
        train(each, optimizer, range(3, 6))
    assert_same_run(loaded, saved, "trained")


class Fading:
    """A callable of whose state torch keeps an empty dict."""

    def __call__(self, epoch):
        return 0.9**epoch


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_callable_without_state_comes_back(options, tmp_path):
    model, saved = build(LambdaLR(Fading()))
    train(model, saved, range(3))
    save(tmp_path, model, saved, options)
    other, loaded = build(LambdaLR(Fading()))
    load(tmp_path, other, loaded, options)
    assert_same_run(loaded, saved, "loaded")


@pytest.mark.usefixtures("alone")
def test_torchs_sgd_loads_ours(tmp_path):
    model, ours = build(StepLR(2))
    train(model, ours, range(3))
    save(tmp_path, model, ours)
    other, theirs = build(optimizer=torch.optim.SGD)
    load(tmp_path, other, theirs)
    assert_same_run(ours, theirs, "loaded")


@pytest.mark.usefixtures("alone")
def test_ours_loads_torchs_sgd(tmp_path):
    model, theirs = build(optimizer=torch.optim.SGD)
    train(model, theirs, range(3), lr_scheduler.StepLR(theirs, 2))
    save(tmp_path, model, theirs)
    other, ours = build()
    partial = dcp.DefaultLoadPlanner(allow_partial_load=True)  # torch's groups lack some of ours
    load(tmp_path, other, ours, planner=partial)
    assert_same_run(ours, theirs, "loaded")
    for each, optimizer in ((model, theirs), (other, ours)):
        train(each, optimizer, range(3, 5))
    assert_same_run(ours, theirs, "trained")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("shard", [False, True], ids=["", "sharded"])
@pytest.mark.parametrize("hyper", ["plain", "momentum-decay", "dampening", "maximize-nesterov"])
def test_the_checkpoints_own_step_changes_nothing(hyper, shard):
    hyper = {"nesterov": False, "weight_decay": 0, "momentum": 0, **with_lr(HYPERS[hyper])}
    model, ours = build(StepLR(2), shard=shard, **hyper)
    with torch.no_grad():
        for p in model.parameters():
            local(p).view(-1)[:1].fill_(-0.0)
    other, theirs = build(optimizer=torch.optim.SGD, shard=shard, **hyper)
    other.load_state_dict(model.state_dict())
    scheduler = lr_scheduler.StepLR(theirs, 2)
    before = snapshot(ours)
    names = {name for name, _ in model.named_parameters() if hyper["momentum"]}
    versions = [p._version for p in model.parameters()]
    for _ in range(2):
        state = get_optimizer_state_dict(model, ours)
        assert set(state["state"]) == names
        assert all(not local(s["momentum_buffer"]).any() for s in state["state"].values())
        assert [p._version for p in model.parameters()] == versions
        before["momentum"] = [momentum(ours, p) for p in parameters(ours)]
        assert_unchanged(ours, before)
    assert [rate != rate for rate in ours.lr_used] == [True]
    assert ours.lr_history().steps == []
    for step in range(3):
        train(model, ours, [step])
        train(other, theirs, [step], scheduler)
        assert_same_run(ours, theirs, f"step {step}")
        if not hyper["momentum"]:
            get_optimizer_state_dict(model, ours)  # there is no state yet, so it steps again
            assert ours.scheduler.last_epoch == step + 1
            assert_same_run(ours, theirs, f"step {step}")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda opt: opt], ids=["copied", "itself"])
def test_the_step_after_the_checkpoints_own_is_the_first(clone):
    model, ours = build(dampening=0.5, nesterov=False, shard=False)
    get_optimizer_state_dict(model, ours)
    ours = clone(ours)
    p = parameters(ours)[0]
    p.grad = numbers(*p.shape)
    ours.step()
    want = p.grad.add(network()[0].weight.detach(), alpha=HYPER["weight_decay"])
    assert_same_bits(ours.state[p]["momentum_buffer"], want)
    assert len(ours.state) == 1


@pytest.mark.usefixtures("alone")
def test_a_first_step_at_rate_zero_without_gradients_is_no_checkpoints():
    model, ours = build(LambdaLR(lambda epoch: epoch / 10))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    ours.step()
    assert ours.scheduler.last_epoch == 1
    assert rates(ours) == [0.1 * (1 / 10)]


@pytest.mark.usefixtures("alone")
def test_buffers_loaded_in_place_are_the_ones_used(tmp_path):
    model, saved = build(dampening=0.5, nesterov=False)
    train(model, saved, range(2))
    save(tmp_path, model, saved)
    other, loaded = build(dampening=0.5, nesterov=False)
    state = {"optimizer": get_optimizer_state_dict(other, loaded)}
    dcp.load(state, checkpoint_id=tmp_path)  # into the very buffers of the optimizer
    set_model_state_dict(other, get_model_state_dict(model))
    for each, optimizer in ((model, saved), (other, loaded)):
        train(each, optimizer, [2])
    assert_same_run(loaded, saved, "trained")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("masters", [True, "remainder"])
def test_masters_come_back_and_are_not_those_of_an_unloaded_run(masters, tmp_path):
    def build():
        model = network().bfloat16()
        hyper = {**HYPER, "dampening": 0.5, "nesterov": False}
        return model, FusedDecaySGD(model.parameters(), master_weights=masters, **hyper)

    def train(model, optimizer, steps):
        for step in steps:
            for i, p in enumerate(model.parameters()):
                p.grad = numbers(*p.shape, dtype=p.dtype, seed=10 * step + i)
            optimizer.step()
            optimizer.zero_grad()

    model, plain = build()
    other, saved = build()
    get_optimizer_state_dict(other, saved)
    for each, optimizer in ((model, plain), (other, saved)):
        train(each, optimizer, range(3))
    assert_same_state(saved, plain)
    save(tmp_path, other, saved)
    third, loaded = build()
    load(tmp_path, third, loaded)
    for each, optimizer in ((model, plain), (third, loaded)):
        train(each, optimizer, range(3, 6))
    assert_same_state(loaded, plain)
    key = "master" if masters is True else "master_remainder"
    for p, q in zip(parameters(loaded), parameters(plain), strict=True):
        assert torch.equal(loaded.state[p][key], plain.state[q][key])
