"""Sparse gradients: torch's for-loop to the last bit, and its refusals before the first write."""

import copy
import io
import pickle

import pytest
import torch
from support.bits import assert_same_bits
from support.contract import nothing_changes
from support.twin import assert_same_state, leaf, numbers, rates, sgd
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from lrfused import ExponentialLR, FusedDecaySGD, fuse, update_in_backward
from lrfused.reference import ReferenceDecaySGD

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # of torch's constructors, once each

SHAPE = (6, 3)
HYPER = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "dampened, maximized": {"momentum": 0.9, "dampening": 0.3, "maximize": True},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "decay": {"weight_decay": 0.1},
    "all": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
DTYPES += [torch.complex64, torch.complex128]


def coo(step, dtype=torch.float32, shape=SHAPE, sparse_dim=1):
    """Draw a gradient whose entries repeat an index, as those of an embedding do."""
    rows = torch.tensor([[0, 2, 2, 5]] * sparse_dim) % torch.tensor(shape[:sparse_dim])[:, None]
    values = numbers(4, *shape[sparse_dim:], dtype=dtype, seed=step + 1)
    values[2] = values[1]  # a GPU adds duplicates in any order
    return torch.sparse_coo_tensor(rows.to(values.device), values, shape)


def draw(kind, step, dtype):
    """Draw a gradient: s is sparse, c is coalesced, d is dense, and _ is none."""
    if kind == "d":
        return numbers(*SHAPE, dtype=dtype, seed=step + 1)
    grad = None if kind == "_" else coo(step, dtype)
    return grad.coalesce() if kind == "c" else grad


class Pair:
    """A FusedDecaySGD and torch's for-loop, over a dense parameter and one of sparse gradients."""

    def __init__(self, backend, dtype=torch.float32, hyper=HYPER["momentum"], **kwargs):
        values = [numbers(33), numbers(*SHAPE, dtype=dtype, seed=1)]
        self.mine, self.other = ([leaf(v) for v in values] for _ in range(2))
        self.ours = FusedDecaySGD(
            self.mine, lr=0.1, schedule=ExponentialLR(0.9), backend=backend, **hyper, **kwargs
        )
        self.theirs = sgd(self.other, lr=0.1, **hyper)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.theirs, 0.9)

    def give(self, make, step):
        """Give both the same gradients, each its own copy."""
        for dense, odd in (self.mine, self.other):
            dense.grad, odd.grad = numbers(33, seed=50 + step), make()

    def step(self):
        self.ours.step()
        self.theirs.step()
        self.scheduler.step()
        assert_same_state(self.ours, self.theirs)

    def run(self, kinds, dtype=torch.float32):
        """Step over these kinds of gradients; return torch's error where it raises one."""
        for step, kind in enumerate(kinds):
            self.give(lambda kind=kind, step=step: draw(kind, step, dtype), step)
            grad = self.mine[1].grad
            before = None if grad is None else grad.clone()
            try:
                self.theirs.step()
            except RuntimeError as error:
                with nothing_changes(self.ours), pytest.raises(type(error), match="torch"):
                    self.ours.step()
                return error
            self.ours.step()
            self.scheduler.step()
            assert_same_state(self.ours, self.theirs, f"step {step} of {kinds}")
            if before is not None:
                assert_same_bits(grad, before, "the gradient")
        return None


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
        except RuntimeError as error:
            before = pair.mine[0].detach().clone()
            with pytest.raises(type(error), match="sparse"):
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
    with nothing_changes(pair.ours), pytest.raises(NotImplementedError, match="clip_grad_norm_"):
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
