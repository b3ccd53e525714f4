"""Streams that share memory: torch writes one parameter after the other, and so do we."""

import pytest
import torch
from cases import HYPER
from support.bits import assert_same_bits
from support.twin import Twin, numbers

HYPERS = {name: HYPER[name] for name in ("plain", "momentum-decay", "nesterov-decay")}
hypers = pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)


def of_both(twin):
    """Return each optimizer with its parameters."""
    return zip(twin.both, (twin.mine, twin.other), strict=True)


@hypers
@pytest.mark.parametrize("behind", [0, 100], ids=["all", "a part"])
@pytest.mark.parametrize("when", [0, 2], ids=["first", "later"])
def test_parameters_tied_by_their_data(backend, hyper, when, behind):
    twin = Twin([numbers(1100, seed=i) for i in range(4)], backend, hyper)
    twin.run(when)
    for _, params in of_both(twin):
        whole = torch.cat([params[0].data, params[0].data[:100]])
        params[0].data = whole[:1100]
        params[3].data = whole[behind : behind + 1100]
    twin.run(3)
    for _, params in of_both(twin):
        params[3].data = params[3].data.clone()
    twin.run(2)


@pytest.mark.backends("host", reason="threads are the host's")
@pytest.mark.parametrize("groups", [1, 2])
def test_tied_parameters_on_two_threads(backend, threads, groups):
    threads(2)
    values = [numbers(1 << 19, seed=i) for i in range(4)]
    twin = Twin(values, backend, {})
    for optimizer, params in of_both(twin):
        params[3].data = params[0].data
        if groups == 2:
            del optimizer.param_groups[0]["params"][3]
            optimizer.add_param_group({"params": [params[3]], "lr": 0.3})
    twin.run(4)


@hypers
def test_a_momentum_of_two_parameters(backend, hyper):
    twin = Twin([numbers(300, seed=i) for i in range(3)], backend, {"momentum": 0.9} | hyper)
    twin.run(2)
    for optimizer, params in of_both(twin):
        state = optimizer.state
        state[params[2]]["momentum_buffer"] = state[params[0]]["momentum_buffer"]
    twin.run(3)


def test_a_momentum_that_is_the_parameter(backend):
    twin = Twin([numbers(300, seed=i) for i in range(3)], backend, HYPER["momentum-decay"])
    twin.run(1)
    for optimizer, params in of_both(twin):
        optimizer.state[params[1]]["momentum_buffer"] = params[1].data
    twin.run(3)


@pytest.mark.parametrize("hyper", [{}, HYPER["nesterov-decay"]], ids=str)
def test_a_gradient_that_is_the_parameter(backend, hyper):
    twin = Twin([numbers(300, seed=i) for i in range(3)], backend, hyper)
    twin.run(2)
    for _ in range(2):
        for optimizer, params in of_both(twin):
            for i, p in enumerate(params):
                p.grad = p.data if i == 1 else numbers(300, seed=9)
            optimizer.step()
    twin.check()


@pytest.mark.parametrize("by", [-1, 1, 3])
def test_a_gradient_that_overlaps_the_momentum_is_refused_as_by_torch(backend, by):
    twin = Twin([numbers(300)], backend, HYPER["momentum"])
    twin.run(1)
    for optimizer, (p,) in of_both(twin):
        memory = numbers(310, seed=3)
        optimizer.state[p]["momentum_buffer"] = memory[4:304]
        p.grad = memory[4 + by : 304 + by]
        before = p.detach().clone()
        with pytest.raises(RuntimeError, match="single memory location"):
            optimizer.step()
        assert torch.equal(p, before)


@pytest.mark.parametrize("by", [-1, 0, 1, 3])
def test_a_gradient_that_overlaps_the_momentum_beside_decay(backend, by):
    """The decay is added to a copy of the gradient."""
    twin = Twin([numbers(300)], backend, HYPER["momentum-decay"])
    twin.run(1)
    for optimizer, (p,) in of_both(twin):
        memory = numbers(310, seed=3)
        optimizer.state[p]["momentum_buffer"] = memory[4:304]
        p.grad = memory[4 + by : 304 + by]
        optimizer.step()
    twin.check()


@pytest.mark.parametrize("by", [-1, 1])
def test_a_momentum_that_overlaps_the_parameter_is_refused_as_by_torch(backend, by):
    twin = Twin([numbers(300)], backend, HYPER["momentum-decay"])
    twin.run(1)
    for optimizer, (p,) in of_both(twin):
        memory = numbers(310, seed=3)
        p.data, p.grad = memory[4:304], numbers(300)
        optimizer.state[p]["momentum_buffer"] = memory[4 + by : 304 + by]
        with pytest.raises(RuntimeError, match="single memory location"):
            optimizer.step()


def test_neighbours_in_one_block_of_memory_are_apart(backend):
    """As the parts of a flattened model: nothing is left to the reference."""
    twin = Twin([numbers(33, seed=i) for i in range(6)], backend, HYPER["momentum-decay"])
    for _, params in of_both(twin):
        block = torch.cat([p.data for p in params])
        for p, part in zip(params, block.split(33), strict=True):
            p.data = part
    twin.run(3)
    if backend == "compiled":
        from lrfused import _C

        groups, state = twin.opt.param_groups, twin.opt.state
        assert not _C.gather(groups, state, [0.1, 0.9], _C.Master.none, "cpu").odd


@hypers
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_a_strided_view_of_a_plain_parameter(backend, hyper, order):
    """Of these the one is left to the reference, and the other to the kernel."""
    twin = Twin([numbers(40, 20, seed=i) for i in range(3)], backend, hyper)
    for optimizer, params in of_both(twin):
        params[0].data = params[2].data[:, :10]
        group = optimizer.param_groups[0]
        group["params"] = [params[i] for i in order]
    for step in range(3):
        for optimizer, params in of_both(twin):
            for i, p in enumerate(params):
                p.grad = numbers(*p.shape, seed=10 * step + i)
            optimizer.step()
        twin.check()


def test_neighbours_that_grow_into_each_other(backend):
    """At the same addresses, of the same number of elements, and of a larger dtype."""
    block = numbers(300)
    twin = Twin([block[:100], block[100:200]], backend, {})
    for params in (twin.mine, twin.other):
        memory = block.clone()
        for i, p in enumerate(params):
            p.data = memory[100 * i : 100 * i + 100]
    twin.run(2)
    for params in (twin.mine, twin.other):
        wide = torch.cat([params[0].data, params[1].data, block]).view(torch.float64)
        for i, p in enumerate(params):
            p.grad = None
            p.data = wide[50 * i : 50 * i + 100]
    for _ in range(2):
        for optimizer, params in of_both(twin):
            for i, p in enumerate(params):
                p.grad = numbers(100, dtype=torch.float64, seed=i)
            optimizer.step()
        for mine, other in zip(twin.mine, twin.other, strict=True):
            assert_same_bits(mine, other)
