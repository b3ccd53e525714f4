"""Training on several ranks: the loop with FusedDecaySGD equals the same with torch's SGD."""

import re

import pytest
import torch
import torch.distributed as dist
from cases import HYPER as HYPERS
from cases import with_lr
from support.bits import assert_same_bits, assert_same_rates
from support.distributed import (
    COUNTS,
    HYPER,
    Loops,
    alone,  # noqa: F401, a fixture
    assert_same_run,
    backward,
    local,
    network,
    on_ranks,
    parameters,
    without_the_reference,
)
from support.twin import assert_unchanged, leaf, momentum, numbers, rates, sgd, snapshot
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler

from lrfused import (
    CosineAnnealingLR,
    FusedDecaySGD,
    OneCycleLR,
    ReduceLROnPlateau,
    backends,
    check_ranks,
)

ranks = pytest.mark.parametrize("count", COUNTS)


def data_parallel():
    loops = Loops(
        lambda: DistributedDataParallel(network()),
        OneCycleLR(0.3, total_steps=8),
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=8),
    )
    loops.run(6)
    check_ranks(loops.opt)


@ranks
def test_data_parallel(count):
    on_ranks(count, data_parallel)


def fully_sharded(offload, **hyper):
    loops = Loops(
        lambda: network(shard=True, offload=offload),
        CosineAnnealingLR(10),
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 10),
        **hyper,
    )
    params = parameters(loops.opt)
    empty = [p for p in params if p.to_local().numel() == 0]
    assert len(empty) == [0, 0, 2, 6][dist.get_rank()]  # the last of four ranks has nothing
    versions = [p._version for p in params]
    loops.run(4)
    assert all(p._version > v for p, v in zip(params, versions, strict=True))
    check_ranks(loops.opt)


@ranks
@pytest.mark.parametrize("offload", [False, True], ids=["", "offload"])
def test_fully_sharded(count, offload):
    on_ranks(count, fully_sharded, offload)


ROWS = (Shard(0),)


def sharded(values, placements=ROWS):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return [distribute_tensor(v, mesh, placements).requires_grad_() for v in values]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("hyper", ["plain", "dampening", "nesterov-decay", "maximize-all"])
@pytest.mark.parametrize("kernel", ["compiled", "cuda", "triton"])
def test_the_parts_of_sharded_parameters_go_through_the_kernel(hyper, kernel):
    reason = backends.available()[kernel]
    if kernel != "compiled" and torch.cuda.is_available():
        reason = "these tensors are on the CPU, where it runs only if there is no GPU"
    if reason is not None:
        pytest.skip(reason)
    hyper = with_lr(HYPERS[hyper])
    values = [numbers(33, 5, seed=1), numbers(1025, seed=2), numbers(0, 3, seed=3)]
    plain = [numbers(40, 4, seed=4), numbers(7, seed=5)]
    mine = [*sharded(values), *(leaf(v) for v in plain)]
    other = [leaf(v) for v in values + plain]
    ours = FusedDecaySGD(mine, backend=kernel, schedule=CosineAnnealingLR(9), **hyper)
    theirs = sgd(other, **hyper)
    scheduler = lr_scheduler.CosineAnnealingLR(theirs, 9)
    for step in range(4):
        for i, (p, q) in enumerate(zip(mine, other, strict=True)):
            q.grad = numbers(*q.shape, seed=10 * step + i)
            p.grad = sharded([q.grad])[0].detach() if hasattr(p, "placements") else q.grad.clone()
        if step == 0:  # one sharded and one plain parameter begin later
            for params in (mine, other):
                params[1].grad = params[-1].grad = None
        with without_the_reference():
            ours.step()
        theirs.step()
        scheduler.step()
        assert_same_rates(rates(ours), rates(theirs))
        for p, q in zip(mine, other, strict=True):
            assert_same_bits(local(p), q)
            got, want = momentum(ours, p), momentum(theirs, q)
            assert (got is None) == (want is None)
            if want is not None:
                assert hasattr(got, "placements") == hasattr(p, "placements")
                assert_same_bits(local(got), want)


def unlike():
    """Place gradients and buffers unlike the parameters, or on other meshes."""
    values = [numbers(8, 4, seed=i) for i in range(4)]
    whole = (Replicate(),)
    mine, other = sharded(values), sharded(values)
    ours, theirs = FusedDecaySGD(mine, **HYPER), sgd(other, **HYPER)
    for step in range(3):
        for params in (mine, other):
            for i, p in enumerate(params):
                grad = numbers(8, 4, seed=10 * step + i)
                p.grad = sharded([grad], whole if i == step else ROWS)[0].detach()
        ours.step()
        theirs.step()
        assert_same_run(ours, theirs, f"step {step}")
        for optimizer, params in ((ours, mine), (theirs, other)):
            state = optimizer.state[params[3]]
            state["momentum_buffer"] = state["momentum_buffer"].redistribute(placements=whole)


def test_sharded_parameters_beside_what_is_laid_out_otherwise():
    on_ranks(2, unlike)


@pytest.mark.usefixtures("alone")
def test_what_is_refused_of_a_sharded_parameter_changes_nothing():
    params = sharded([numbers(8, seed=0), numbers(8, seed=1)])
    ours = FusedDecaySGD(params, schedule=CosineAnnealingLR(9), **HYPER)
    for p in params:
        p.grad = sharded([numbers(8, seed=2)])[0].detach()
    ours.step()
    ours.state[params[1]]["momentum_buffer"] = sharded([numbers(7)])[0].detach()
    before = snapshot(ours)
    with pytest.raises(TypeError, match="momentum_buffer of another shape"):
        ours.step()
    assert_unchanged(ours, before)


@pytest.mark.usefixtures("alone")
def test_masters_of_sharded_parameters_are_sharded_and_remainders_refused():
    values = [numbers(8, 4, dtype=torch.bfloat16)]
    hyper = {"lr": 0.1, "momentum": 0.9, "master_weights": True}
    mine, other = sharded(values), [leaf(v) for v in values]
    ours, plain = FusedDecaySGD(mine, **hyper), FusedDecaySGD(other, **hyper)
    refusing = FusedDecaySGD(mine, **{**hyper, "master_weights": "remainder"})
    for step in range(3):
        other[0].grad = numbers(8, 4, dtype=torch.bfloat16, seed=step)
        mine[0].grad = sharded([other[0].grad])[0].detach()
        with pytest.raises(TypeError, match="use master_weights=True"):
            refusing.step()
        ours.step()
        plain.step()
        assert_same_bits(local(mine[0]), other[0])
        for key in ("momentum_buffer", "master"):
            assert_same_bits(local(ours.state[mine[0]][key]), plain.state[other[0]][key])


def zero_redundancy(path):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    def wrapped(optimizer_class, model, **hyper):
        return ZeroRedundancyOptimizer(model.parameters(), optimizer_class, **{**HYPER, **hyper})

    def build():
        models = [DistributedDataParallel(network()) for _ in range(2)]
        ours = wrapped(FusedDecaySGD, models[0], schedule=OneCycleLR(0.3, total_steps=12))
        theirs = wrapped(torch.optim.SGD, models[1], foreach=False)
        return models, ours, theirs, lr_scheduler.OneCycleLR(theirs, 0.3, total_steps=12)

    def train(models, ours, theirs, scheduler, steps):
        for step in steps:
            for model, optimizer in zip(models, (ours, theirs), strict=True):
                optimizer.zero_grad()
                backward(model, step)
                optimizer.step()
            scheduler.step()
            when = f"step {step}"
            assert_same_rates(rates(ours), rates(theirs), when)
            for group in ("momentum", "weight_decay"):
                assert ours.param_groups[0][group] == theirs.param_groups[0][group], when
            for p, q in zip(*(model.parameters() for model in models), strict=True):
                assert_same_bits(p, q, when)
        check_ranks(ours.optim)

    models, ours, theirs, scheduler = build()
    train(models, ours, theirs, scheduler, range(5))
    for optimizer in (ours, theirs):
        optimizer.consolidate_state_dict(0)
    if dist.get_rank() == 0:
        torch.save(
            {
                "models": [model.state_dict() for model in models],
                "optimizers": [ours.state_dict(), theirs.state_dict()],
                "scheduler": scheduler.state_dict(),
            },
            path,
        )
    dist.barrier()
    saved = torch.load(path, weights_only=True)
    models, ours, theirs, scheduler = build()
    for part, states in (
        (models, saved["models"]),
        ((ours, theirs), saved["optimizers"]),
        ((scheduler,), [saved["scheduler"]]),
    ):
        for each, state in zip(part, states, strict=True):
            each.load_state_dict(state)
    train(models, ours, theirs, scheduler, range(5, 11))


def zero_redundancy_with_the_schedule_in_the_loop():
    from torch.distributed.optim import ZeroRedundancyOptimizer

    models = [network() for _ in range(2)]
    ours = ZeroRedundancyOptimizer(
        models[0].parameters(),
        FusedDecaySGD,
        **HYPER,
        schedule=[CosineAnnealingLR(7), ReduceLROnPlateau(factor=0.5, patience=0)],
        schedule_every=None,
    )
    theirs = ZeroRedundancyOptimizer(models[1].parameters(), torch.optim.SGD, **HYPER)
    cosine = lr_scheduler.CosineAnnealingLR(theirs, 7)
    plateau = lr_scheduler.ReduceLROnPlateau(theirs, factor=0.5, patience=0)
    handle = ours.optim.scheduler
    for step in range(8):
        for model, optimizer in zip(models, (ours, theirs), strict=True):
            optimizer.zero_grad()
            backward(model, step)
            optimizer.step()
        handle.step(), cosine.step()
        if step % 3 == 2:
            handle.step(1.0), plateau.step(1.0)
        assert_same_rates(rates(ours.optim), rates(theirs), f"step {step}")
        for p, q in zip(*(model.parameters() for model in models), strict=True):
            assert_same_bits(p, q, f"step {step}")
    check_ranks(ours.optim)


@ranks
def test_zero_redundancy_with_the_schedule_in_the_loop(count):
    on_ranks(count, zero_redundancy_with_the_schedule_in_the_loop)


@ranks
def test_zero_redundancy_and_its_checkpoint(count, tmp_path):
    on_ranks(count, zero_redundancy, str(tmp_path / "checkpoint.pt"))


def fed_by_every_rank():
    kwargs = {"patience": 0, "factor": 0.5}
    rank, count = dist.get_rank(), dist.get_world_size()
    plateau = ReduceLROnPlateau(**kwargs, process_group=dist.group.WORLD)
    ours = FusedDecaySGD([leaf(numbers(3))], lr=0.1, schedule=plateau)
    theirs = sgd([leaf(numbers(3))], lr=0.1)
    other = lr_scheduler.ReduceLROnPlateau(theirs, **kwargs)
    for step in range(20):
        metrics = [1.0 + (step * (7 - 4 * r)) % (5 + r) for r in range(count)]
        ours.scheduler.step(torch.tensor(metrics[rank]))
        other.step(sum(metrics) / count)
        assert_same_rates(rates(ours), rates(theirs), f"step {step}")
    assert rates(ours)[0] < 0.1
    check_ranks(ours)


@ranks
def test_ranks_decide_on_the_mean_of_their_metrics(count):
    on_ranks(count, fed_by_every_rank)


def disagreeing():
    rank, count = dist.get_rank(), dist.get_world_size()
    params = [leaf(numbers(3, seed=i)) for i in range(2)]
    ours = FusedDecaySGD(
        [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.2}],
        lr=0.1,
        schedule=CosineAnnealingLR(10),
    )
    check_ranks(ours)
    halves = [dist.new_group([0, 1]), dist.new_group(list(range(2, count)))] if count > 2 else []
    ours.step()
    check_ranks(ours)
    if rank == 1:
        ours.step()
    others = {2: "rank 0", 4: "ranks 0, 2, 3"}[count]
    expected = (
        f"ranks hold different rates: {others} at epoch 1: 0.09755282581475769, "
        "0.19510565162951538; rank 1 at epoch 2: 0.09045084971874738, 0.18090169943749476"
    )
    with pytest.raises(RuntimeError, match=re.escape(expected)):
        check_ranks(ours)
    if halves and rank >= 2:
        check_ranks(ours, halves[1])
    if rank == 1:
        ours.param_groups[0]["lr"] = float("nan")
    else:
        ours.step()
        ours.param_groups[0]["lr"] = float("nan")
    check_ranks(ours)
    if rank == 0:
        ours.add_param_group({"params": [leaf(numbers(3))]})
    with pytest.raises(RuntimeError, match="rank 0 at epoch 2"):
        check_ranks(ours)


@ranks
def test_ranks_that_hold_other_rates_are_named(count):
    on_ranks(count, disagreeing)
