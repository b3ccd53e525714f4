"""The update of one step: every hyper-parameter, size, dtype and backend against the oracle."""

import itertools

import pytest
import torch
from cases import DTYPES, HYPER, SIZES, with_lr
from support.bits import assert_same_bits
from support.twin import Twin, assert_same_state, leaf, momentum, numbers, oracle

from lrfused import FusedDecaySGD

# The lengths about which a loop over chunks or vectors may turn.
EDGES = [2, 3, 15, 16, 17, 63, 64, 65, 127, 129, 4095, 4096, 4097, 8191, 8193, 16383, 16384, 16385]


def values(sizes, dtype):
    return [numbers(size, dtype=dtype, seed=size) for size in sizes]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", HYPER.values(), ids=HYPER)
def test_every_size(backend, hyper, dtype):
    Twin(values(SIZES, dtype), backend, hyper).run(4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", ["momentum-decay", "nesterov-decay", "decay"])
def test_edges_of_vectors_and_chunks(backend, hyper, dtype):
    Twin(values(EDGES, dtype), backend, HYPER[hyper]).run(3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_one_tensor_alone(backend, size, dtype):
    Twin(values([size], dtype), backend, HYPER["nesterov-decay"]).run(3)


def special(dtype):
    info = torch.finfo(dtype)
    tiny = info.smallest_normal
    return torch.tensor(
        [
            *(0.0, -0.0, 1.0, -1.0, info.max, -info.max, torch.inf, -torch.inf, torch.nan),
            *(tiny, -tiny, tiny * info.eps, -tiny * info.eps, tiny * (1 - info.eps), tiny * 3),
            *(1 + info.eps, 1 - info.eps / 2, 1 / 3, 1e-3, -1e-3),
        ],
        dtype=torch.float64,
    ).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", HYPER.values(), ids=HYPER)
def test_special_values(backend, hyper, dtype):
    table = special(dtype)
    pairs = torch.tensor(list(itertools.product(range(len(table)), repeat=2)))
    twin = Twin([table[pairs[:, 0]]], backend, hyper)
    for turn in (0, 7, 13):
        twin.step([table[(pairs[:, 1] + turn) % len(table)]])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("lr", [0.0, 1e-50, 1e-320, torch.inf, torch.nan], ids=str)
def test_extreme_rates(backend, lr, dtype):
    twin = Twin([special(dtype)], backend, {"lr": 0.5, "weight_decay": 0.1})
    for optimizer in twin.both:
        optimizer.param_groups[0]["lr"] = lr
    twin.step([special(dtype).flip(0)])
    twin.step([special(dtype).roll(3)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1e300, torch.inf, torch.nan], ids=str)
def test_extreme_momenta(backend, size, dtype):
    twin = Twin([special(dtype)], backend, HYPER["momentum"])
    twin.step([special(dtype).flip(0)])
    for optimizer in twin.both:
        optimizer.param_groups[0]["momentum"] = size
    twin.step([special(dtype).roll(3)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_missing_and_late_gradients(backend, dtype):
    twin = Twin(values([5, 70, 33, 1025], dtype), backend, HYPER["maximize-all"])
    for step in range(8):
        missing = [1] if step < 4 else [step % 3]
        twin.step(twin.draw(missing))
    assert all(momentum(twin.opt, p) is not None for p in twin.mine)


def test_no_gradient_at_all_changes_nothing(backend):
    twin = Twin(values([5, 70], torch.float32), backend, HYPER["momentum-decay"])
    versions = [p._version for p in twin.mine]
    twin.step(twin.draw([0, 1]))
    assert [p._version for p in twin.mine] == versions
    assert not twin.opt.state


@pytest.mark.parametrize("hyper", ["plain", "decay", "maximize", "dampening-alone"])
def test_without_momentum_the_state_stays_empty(backend, hyper):
    twin = Twin(values([5, 70], torch.float32), backend, HYPER[hyper])
    twin.run(2)
    assert not any(twin.opt.state.get(p) for p in twin.mine)
    assert twin.opt.state_dict()["state"] == twin.oracle.state_dict()["state"] == {}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_hyper_parameters_changed_between_steps(backend, dtype):
    twin = Twin(values([5, 1025, 33], dtype), backend, {"weight_decay": 0.01})
    changes = [
        {},
        {"momentum": 0.9},  # switched on later: fresh buffers
        {"dampening": 0.3},
        {"weight_decay": 0.0},
        {"momentum": 0},  # off: the buffers stay as they are
        {"weight_decay": 0.2, "lr": 0.03},
        {"momentum": 0.5, "dampening": 0.0},  # on again: the old buffers go on
        {"nesterov": True, "maximize": True},
        {"lr": 1},
        {"momentum": 0.0, "maximize": False},  # torch checks nesterov at construction only
        {"momentum": 1e-9, "dampening": 0.5},
    ]
    for change in changes:
        for optimizer in twin.both:
            optimizer.param_groups[0].update(change)
        twin.run(2)


def test_decay_of_minus_zero_and_of_tensors(backend):
    twin = Twin(values([5, 1025], torch.float32), backend)
    for decay in (-0.0, 0, 0.1, torch.tensor(0.1), torch.tensor(0.1, dtype=torch.float64)):
        for optimizer in twin.both:
            optimizer.param_groups[0]["weight_decay"] = decay
        twin.step()


def test_groups_with_their_own_hyper_parameters(backend):
    picks = ["plain", "nesterov-decay", "maximize-all", "decay", "dampening", "rate-int", "large"]

    def groups():
        return [
            {
                "params": [leaf(numbers(n, seed=n + 100 * i)) for n in (3, 1025, 64)],
                **with_lr(HYPER[pick]),
            }
            for i, pick in enumerate(picks)
        ]

    ours, theirs = FusedDecaySGD(groups(), backend=backend), oracle(groups(), torch.float32)
    for step in range(5):
        for optimizer in (ours, theirs):
            for i, group in enumerate(optimizer.param_groups):
                for j, p in enumerate(group["params"]):
                    late = step < 2 and (i + j) % 3 == 0
                    p.grad = None if late else numbers(*p.shape, seed=step + 10 * i + 1000 * j)
        ours.step()
        theirs.step()
        assert_same_state(ours, theirs, f"after step {step + 1},")


@pytest.mark.parametrize("hyper", ["nesterov-decay", "maximize-all", "plain"])
def test_several_dtypes_in_one_group(backend, hyper):
    sizes = [1, 33, 1025, 0, 17]

    def params():
        return [leaf(v) for n in sizes for v in (numbers(n, dtype=d, seed=n) for d in DTYPES)]

    def of(all_params, dtype):
        return [p for p in all_params if p.dtype is dtype]

    mine, other = params(), params()
    kwargs = with_lr(HYPER[hyper])
    ours = FusedDecaySGD(mine, backend=backend, **kwargs)
    oracles = {dtype: oracle(of(other, dtype), dtype, **kwargs) for dtype in DTYPES}
    for step in range(4):
        for i, (p, q) in enumerate(zip(mine, other, strict=True)):
            grad = numbers(*p.shape, dtype=p.dtype, seed=step * 100 + i)
            p.grad, q.grad = grad.clone(), grad.clone()
        ours.step()
        for each in oracles.values():
            each.step()
        for i, (p, q) in enumerate(zip(mine, other, strict=True)):
            assert_same_bits(p, q, f"step {step}, parameter {i}, {p.dtype}")
            want = momentum(oracles[p.dtype], q)
            assert (momentum(ours, p) is None) == (want is None)
            if want is not None:
                assert_same_bits(momentum(ours, p), want, f"step {step}, momentum {i}")


def test_ten_thousand_tensors(backend):
    sizes = [64 + (i % 7 == 0) for i in range(10_000)]

    def many(seed):
        return [part.clone() for part in numbers(sum(sizes), seed=seed).split(sizes)]

    twin = Twin(many(0), backend, HYPER["momentum-decay"])
    twin.step(many(1))
    twin.step([None if i % 13 == 0 else grad for i, grad in enumerate(many(2))])


@pytest.mark.parametrize("hyper", ["plain", "momentum-decay", "nesterov", "dampening"])
def test_a_parameter_listed_twice_is_updated_twice(backend, hyper):
    mine, other = leaf(numbers(1025, seed=1)), leaf(numbers(1025, seed=1))
    kwargs = with_lr(HYPER[hyper])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        theirs = oracle([other, other], torch.float32, **kwargs)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        ours = FusedDecaySGD([mine, mine], backend=backend, **kwargs)
    for step in range(4):
        mine.grad, other.grad = numbers(1025, seed=step + 9), numbers(1025, seed=step + 9)
        ours.step()
        theirs.step()
        assert_same_state(ours, theirs, f"after step {step + 1},")


@pytest.mark.parametrize("hyper", ["momentum", "momentum-decay", "maximize-nesterov"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_first_buffer_is_its_own(backend, hyper, dtype):
    twin = Twin(values([5, 1025], dtype), backend, HYPER[hyper])
    twin.step()
    buffers = [momentum(twin.opt, p).clone() for p in twin.mine]
    for p in twin.mine:
        assert momentum(twin.opt, p).data_ptr() != p.grad.data_ptr()
        assert not momentum(twin.opt, p).requires_grad
        p.grad.fill_(77)
    for p, before in zip(twin.mine, buffers, strict=True):
        assert_same_bits(momentum(twin.opt, p), before)


def test_autograd_sees_the_update(backend):
    param = leaf(numbers(1025))
    optimizer = FusedDecaySGD([param], lr=0.1, momentum=0.9, backend=backend)
    for _ in range(3):
        param.grad = numbers(1025, seed=3)
        before = param._version
        optimizer.step()
        assert param._version > before
    loss = (param * param).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_update_is_made_under_grad_mode_without_a_graph(backend):
    twin = Twin(values([9], torch.float32), backend, HYPER["nesterov-decay"])
    with torch.enable_grad():
        twin.step()
    assert twin.mine[0].is_leaf
    assert twin.mine[0].grad_fn is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("hyper", ["plain", "momentum-decay", "maximize-all"])
@pytest.mark.parametrize("size", [2**16, 2**16 - 3])
def test_every_number_of_16_bits(backend, hyper, dtype, size):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    twin = Twin([every[:size]], backend, HYPER[hyper])
    generator = torch.Generator().manual_seed(7)
    for _ in range(3):
        twin.step([every[torch.randperm(2**16, generator=generator)][:size]])


def test_autograd_sees_that_a_step_wrote_parameters_and_momenta(backend):
    p, weight = leaf(numbers(9)), leaf(numbers(9, seed=1))
    optimizer = FusedDecaySGD([p], lr=0.1, momentum=0.9, backend=backend)
    for step in range(3):
        kept = [p] if step == 0 else [p, optimizer.state[p]["momentum_buffer"]]
        products = [(weight * tensor).sum() for tensor in kept]
        p.grad = numbers(9, seed=2)
        optimizer.step()
        for product in products:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                product.backward()
