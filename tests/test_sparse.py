"""Sparse gradients: torch's for-loop to the last bit, and its refusals before the first write."""

import pytest
import torch
from support.bits import assert_same_bits
from support.contract import nothing_changes
from support.sparse import DTYPES, HYPER, SHAPE, Pair, coo, draw
from support.twin import assert_same_state, leaf, numbers, sgd
from torch import nn

from lrfused import ExponentialLR, FusedDecaySGD

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # of torch's constructors, once each


@pytest.mark.parametrize("kinds", ["ssss", "cccc", "scs_s"])
@pytest.mark.parametrize("hyper", HYPER)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sparse_gradients_have_torchs_bits_or_its_refusal(backend, dtype, hyper, kinds):
    error = Pair(backend, dtype, HYPER[hyper]).run(kinds, dtype)
    if "weight_decay" in HYPER[hyper]:
        assert error is not None
    elif dtype is not torch.float16:
        assert error is None


@pytest.mark.parametrize("kinds", ["dss", "sds", "d_sd", "sdd", "dcsd"])
@pytest.mark.parametrize("hyper", HYPER)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
def test_gradients_that_are_sparse_at_one_step_and_dense_at_another(backend, dtype, hyper, kinds):
    error = Pair(backend, dtype, HYPER[hyper]).run(kinds, dtype)
    if hyper == "plain":
        assert error is None


@pytest.mark.backends("host", reason="the tensors of sparse gradients go to the reference")
@pytest.mark.parametrize("shape", [(), (0,), (4,), (0, 3), (5, 0), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("empty", [False, True])
def test_every_number_of_sparse_dimensions(backend, shape, empty):
    for sparse_dim in range(len(shape) + 1):
        mine, other = leaf(numbers(*shape)), leaf(numbers(*shape))
        ours = FusedDecaySGD([mine], lr=0.1, momentum=0.9, nesterov=True, backend=backend)
        theirs = sgd([other], lr=0.1, momentum=0.9, nesterov=True)
        for step in range(3):
            dense = numbers(*shape, seed=step + 1)
            indices = torch.zeros(sparse_dim, 1 - empty, dtype=torch.int64)
            if dense.numel() == 0:
                indices = indices[:, :0]
            values = torch.ones(indices.shape[1], *shape[sparse_dim:])
            for p in (mine, other):
                p.grad = torch.sparse_coo_tensor(indices, values.clone(), shape)
            ours.step()
            theirs.step()
            assert_same_state(ours, theirs)


@pytest.mark.parametrize("value", [1e5, 1e39, 1e300, torch.inf], ids=str)
@pytest.mark.parametrize("key", ["lr", "momentum", "dampening"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_numbers_beyond_the_dtype_are_refused_where_torch_refuses_them(backend, dtype, key, value):
    pair = Pair(backend, dtype)
    del pair.mine[0], pair.other[0]
    for optimizer, params in ((pair.ours, pair.mine), (pair.theirs, pair.other)):
        optimizer.param_groups[0]["params"] = params
        optimizer.param_groups[0][key] = value
    for step in range(2):
        for (p,) in (pair.mine, pair.other):
            p.grad = coo(step, dtype)
        try:
            pair.theirs.step()
        except RuntimeError:
            before = pair.mine[0].detach().clone()
            with pytest.raises(RuntimeError, match="sparse"):
                pair.ours.step()
            assert_same_bits(pair.mine[0], before)
            return
        pair.ours.step()
        pair.scheduler.step()
        assert_same_bits(pair.mine[0], pair.other[0])


@pytest.mark.parametrize("strides", [(1, 6), (6, 2)], ids=str)
def test_a_parameter_in_another_memory_order(backend, strides):
    pair = Pair(backend)
    for optimizer, params in ((pair.ours, pair.mine), (pair.theirs, pair.other)):
        p = torch.empty_strided(SHAPE, strides, device=params[1].device)
        params[1] = p.copy_(params[1].detach()).requires_grad_()
        optimizer.param_groups[0]["params"][1] = params[1]
    assert pair.run("sss") is None


def test_an_embedding_trains_as_with_torch(backend):
    models = []
    for make in (
        lambda p: FusedDecaySGD(
            p, lr=0.1, momentum=0.9, schedule=ExponentialLR(0.9), backend=backend
        ),
        lambda p: sgd(p, lr=0.1, momentum=0.9),
    ):
        model = nn.ModuleDict({"table": nn.Embedding(50, 4, sparse=True), "head": nn.Linear(4, 1)})
        with torch.no_grad():
            for seed, p in enumerate(model.parameters()):
                p.copy_(numbers(*p.shape, seed=seed))
        model.to(numbers(1).device)
        models.append((model, make(model.parameters())))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(models[1][1], 0.9)
    for step in range(4):
        for model, optimizer in models:
            optimizer.zero_grad(set_to_none=step % 2 == 0)
            words = torch.tensor([1, 7, 7, 3 + step], device=numbers(1).device)
            model["head"](model["table"](words)).square().sum().backward()
            assert model["table"].weight.grad.is_sparse
            optimizer.step()
        scheduler.step()
        assert_same_state(models[0][1], models[1][1])


def test_a_sparse_parameter_is_updated_as_in_torch(backend):
    for make, hyper in (
        (lambda x: x.to_sparse(), {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        (lambda x: x.to_sparse_csr(), {"momentum": 0.9, "weight_decay": 0.1, "maximize": True}),
    ):
        mine, other = (make(numbers(*SHAPE)).requires_grad_() for _ in range(2))
        ours = FusedDecaySGD([mine], lr=0.1, backend=backend, **hyper)
        theirs = sgd([other], lr=0.1, **hyper)
        for step in range(3):
            for p in (mine, other):
                p.grad = make(numbers(*SHAPE, seed=step + 1))
            ours.step()
            theirs.step()
            assert_same_bits(mine, other)


@pytest.mark.backends("host", reason="the tensors of sparse gradients go to the reference")
@pytest.mark.parametrize("layout", [torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc], ids=str)
def test_layouts_that_torch_cannot_add_are_refused(backend, layout):
    blocks = (2, 2) if layout in (torch.sparse_bsr, torch.sparse_bsc) else None
    p = numbers(4, 4).to_sparse(layout=layout, blocksize=blocks).requires_grad_()
    p.grad = numbers(4, 4, seed=1).to_sparse(layout=layout, blocksize=blocks)
    before = p.detach().to_dense().clone()
    with pytest.raises(RuntimeError, match=str(layout)):
        FusedDecaySGD([p], lr=0.1, backend=backend).step()
    assert_same_bits(p.detach().to_dense(), before)


# -- GradScaler, clipping, masters ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_step_unscales_as_gradscaler_does(backend, dtype):
    fused, straight = Pair(backend, dtype, amp="fused"), Pair(backend, dtype)
    device = numbers(1).device.type
    scalers = [torch.amp.GradScaler(device, init_scale=2.0**13 / 3) for _ in range(2)]
    for step in range(5):
        for pair, scaler, optimizer in zip(
            (fused, straight), scalers, (fused.ours, straight.theirs), strict=True
        ):
            scaler.scale(torch.ones((), device=device))
            pair.give(lambda step=step: coo(step, dtype), step)
            if step == 2:
                for p in (*pair.mine, *pair.other):
                    p.grad = p.grad * torch.inf
            scaler.step(optimizer)
            scaler.update()
        straight.scheduler.step()
        assert_same_state(fused.ours, straight.theirs, f"step {step}")
    assert fused.ours.scheduler.last_epoch == 5


def test_duplicates_in_float16_are_added_before_they_are_unscaled(backend):
    pair = Pair(backend, torch.float16, {}, amp="fused")
    pair.give(lambda: coo(0, torch.float16), 0)
    scale = torch.tensor(1 / 3.0)
    pair.ours.grad_scale, pair.ours.found_inf = scale, torch.tensor(0.0)
    pair.ours.step()
    inverse = float(scale.double().reciprocal().float())
    grad = pair.other[1].grad.coalesce()
    grad._values().copy_(grad._values().float() * inverse)
    pair.other[0].grad *= inverse
    pair.other[1].grad = grad
    pair.theirs.step()
    for mine, other in zip(pair.mine, pair.other, strict=True):
        assert_same_bits(mine, other)


def test_a_norm_of_sparse_gradients_is_refused_as_in_torch(backend):
    pair = Pair(backend, max_grad_norm=1.0)
    pair.give(lambda: coo(0), 0)
    with pytest.raises(NotImplementedError):
        torch.nn.utils.clip_grad_norm_(pair.other, 1.0)
    with nothing_changes(pair.ours), pytest.raises(RuntimeError, match="clip_grad_norm_"):
        pair.ours.step()
    pair.give(lambda: draw("d", 1, torch.float32), 1)
    pair.ours.step()  # goes on


@pytest.mark.parametrize("masters", [True, "remainder"])
def test_masters_of_parameters_with_sparse_gradients(backend, masters):
    values = [numbers(*SHAPE, dtype=torch.bfloat16)]
    wide = numbers(*SHAPE, dtype=torch.bfloat16).float().requires_grad_()
    mine = [leaf(v) for v in values]
    ours = FusedDecaySGD(mine, lr=0.1, momentum=0.9, master_weights=masters, backend=backend)
    theirs = sgd([wide], lr=0.1, momentum=0.9)
    for step in range(3):
        mine[0].grad = coo(step, torch.bfloat16)
        wide.grad = mine[0].grad.float()
        ours.step()
        theirs.step()
        if masters is True:
            assert_same_bits(ours.state[mine[0]]["master"], wide)
        buffers = (o.state[p]["momentum_buffer"] for o, p in ((ours, mine[0]), (theirs, wide)))
        assert_same_bits(*buffers)
