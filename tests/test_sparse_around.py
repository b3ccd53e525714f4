"""Sparse gradients in checkpoints, copies, fuse and the backward pass."""

import copy
import io
import pickle

import pytest
import torch
from support.bits import assert_same_bits
from support.sparse import HYPER, Pair, coo
from support.twin import assert_same_state, leaf, numbers, rates, sgd
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from lrfused import ExponentialLR, FusedDecaySGD, fuse, update_in_backward
from lrfused.reference import ReferenceDecaySGD

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # of torch's constructors, once each

# -- checkpoints, copies, fuse, backward ---------------------------------------------------------


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def through_state_dict(ours, params):
    other = FusedDecaySGD(
        params, lr=7.0, momentum=0.9, schedule=ExponentialLR(0.9), backend=ours.backend
    )
    other.load_state_dict(saved(ours.state_dict()))
    return other


COPIES = {
    "state_dict": through_state_dict,
    "deepcopy": lambda ours, params: copy.deepcopy(ours),
    "pickle": lambda ours, params: pickle.loads(pickle.dumps(ours)),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kinds", ["ss", "dd"])
def test_a_checkpoint_holds_sparse_momentum(backend, how, kinds):
    pair = Pair(backend)
    assert pair.run(kinds) is None
    pair.ours = COPIES[how](pair.ours, pair.mine)
    pair.mine = pair.ours.param_groups[0]["params"]
    assert_same_state(pair.ours, pair.theirs)
    for step in range(10, 13):
        pair.give(lambda step=step: coo(step), step)
        pair.step()


def test_checkpoints_go_to_torchs_sgd_and_back(backend):
    pair = Pair(backend)
    assert pair.run("ss") is None
    packed = saved(pair.ours.state_dict())
    theirs = sgd([leaf(p) for p in pair.mine], lr=0.1, momentum=0.9)
    theirs.load_state_dict(packed)
    assert_same_bits(
        theirs.state[theirs.param_groups[0]["params"][1]]["momentum_buffer"],
        pair.ours.state[pair.mine[1]]["momentum_buffer"],
    )
    pair.ours.load_state_dict(saved(pair.theirs.state_dict()))
    assert_same_state(pair.ours, pair.theirs)


def test_fuse_goes_on_with_sparse_momentum(backend):
    pair = Pair(backend)
    assert pair.run("ss") is None
    theirs = sgd(pair.mine, lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.9)
    theirs.load_state_dict(copy.deepcopy(pair.theirs.state_dict()))
    scheduler.load_state_dict(pair.scheduler.state_dict())
    pair.ours, _ = fuse(theirs, scheduler, schedule_every=1, backend=backend)
    for step in range(10, 13):
        pair.give(lambda step=step: coo(step), step)
        pair.step()


def test_updates_in_the_backward_pass(backend):
    tables = [nn.Embedding(9, 3, sparse=True) for _ in range(2)]
    for table in tables:
        table.weight.data = numbers(9, 3)
    ours = FusedDecaySGD(
        tables[0].parameters(), lr=0.1, momentum=0.9, schedule=ExponentialLR(0.9), backend=backend
    )
    theirs = sgd(tables[1].parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.9)
    update_in_backward(ours)
    for step in range(3):
        for table in tables:
            words = torch.tensor([1, 1, step], device=table.weight.device)
            table(words).square().sum().backward()
        assert tables[0].weight.grad is None
        ours.step()
        theirs.step()
        scheduler.step()
        theirs.zero_grad()
        assert_same_state(ours, theirs)


@pytest.mark.backends("host", reason="the checkpoint's step is stopped before the backend's")
def test_torchs_distributed_checkpoint_makes_state_for_an_embedding(backend):
    model = nn.Embedding(9, 3, sparse=True)
    optimizer = FusedDecaySGD(model.parameters(), lr=0.1, momentum=0.9, backend=backend)
    before = model.weight.detach().clone()
    get_optimizer_state_dict(model, optimizer)
    assert_same_bits(model.weight, before)
    model(torch.tensor([1, 1])).sum().backward()
    optimizer.step()
    assert optimizer.state[model.weight]["momentum_buffer"].is_sparse


@pytest.mark.backends("emulated", reason="only a device can capture")
def test_a_capturable_optimizers_first_gradient_may_be_sparse(backend):
    for hyper in ("momentum", "nesterov"):
        pair = Pair(backend, hyper=HYPER[hyper], capturable=True)
        for step in range(3):
            pair.give(lambda step=step: coo(step), step)
            pair.ours.step()
            pair.theirs.step()
            pair.scheduler.step()
            for mine, other in zip(pair.mine, pair.other, strict=True):
                assert_same_bits(mine, other)
            assert_same_bits(
                *(o.state[p[1]]["momentum_buffer"] for o, p in
                  ((pair.ours, pair.mine), (pair.theirs, pair.other)))
            )  # fmt: skip


@pytest.mark.backends("host", reason="the modes are the host's")
def test_the_trial_does_not_follow_the_programs_modes(backend):
    for mode in (torch.device("meta"), torch.inference_mode(), torch.enable_grad()):
        pair = Pair(backend)
        pair.give(lambda: coo(0), 0)
        with mode:
            if isinstance(mode, torch.inference_mode):
                pair.mine = [p.detach().clone() for p in pair.mine]
                pair.ours.param_groups[0]["params"] = pair.mine
                for p, q in zip(pair.mine, pair.other, strict=True):
                    p.grad = q.grad.clone()
            pair.ours.step()
        pair.theirs.step()
        for mine, other in zip(pair.mine, pair.other, strict=True):
            assert_same_bits(mine, other)


def test_the_reference_optimizer_takes_sparse_gradients(backend):
    pair = Pair(backend)
    reference = ReferenceDecaySGD([leaf(p) for p in pair.mine], lr=0.1, momentum=0.9)
    for step in range(3):
        pair.give(lambda step=step: coo(step), step)
        pair.ours.param_groups[0]["lr"] = 0.1
        params = reference.param_groups[0]["params"]
        for p, q in zip(params, pair.mine, strict=True):
            p.grad = q.grad.clone()
        pair.ours.step()
        reference.step()
        for p, q in zip(params, pair.mine, strict=True):
            assert_same_bits(p, q)
    assert rates(reference) == [0.1]
