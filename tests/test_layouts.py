"""Parameters, gradients and momenta that do not lie in memory as the plain ones do."""

import itertools

import pytest
import torch
from cases import DTYPES, HYPER
from support.bits import assert_same_bits
from support.twin import Twin, momentum, numbers, same_layout

from lrfused import FusedDecaySGD

HYPERS = {name: HYPER[name] for name in ("plain", "nesterov-decay", "maximize-all")}


def laid_out(values, like):
    """Copy values into the strides of another tensor of the same shape."""
    out = torch.empty_strided(like.shape, like.stride(), dtype=values.dtype)
    return out.copy_(values)


def every_layout(dtype, seed):
    """Make one tensor in each layout a parameter or a gradient may have."""
    image = numbers(4, 5, 6, 7, dtype=dtype, seed=seed)
    plane = numbers(34, 31, dtype=dtype, seed=seed + 1)
    line = numbers(2100, dtype=dtype, seed=seed + 2)
    return {
        "contiguous": image.clone(),
        "channels_last": image.contiguous(memory_format=torch.channels_last),
        "channels_last_3d": numbers(2, 3, 4, 5, 6, dtype=dtype, seed=seed + 3).contiguous(
            memory_format=torch.channels_last_3d
        ),
        "transposed": plane.t(),
        "permuted": image.permute(2, 0, 3, 1),
        "every_second": line[::2],
        "columns": plane[:, 3:20],
        "inner": image[:, 1:4, :, 2:5],
        "misaligned": line[1:1026],
        "misaligned_by_three": line[3:2000],
        "scalar": numbers(dtype=dtype, seed=seed + 4),
        "one": line[7:8],
        "empty": plane[:0],
        "empty_columns": plane[:, :0],
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_parameters_in_every_layout(backend, hyper, dtype):
    twin = Twin(every_layout(dtype, 0).values(), backend, hyper)
    twin.run(2)
    grads = [same_layout(p) for p in every_layout(dtype, 50).values()]
    twin.step(grads)
    twin.step([laid_out(g, p) for g, p in zip(grads, twin.mine, strict=True)])
    twin.step([g.contiguous() for g in grads])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_plain_parameters_with_gradients_in_every_layout(backend, hyper, dtype):
    grads = every_layout(dtype, 50).values()
    twin = Twin([numbers(*g.shape, dtype=dtype) for g in grads], backend, hyper)
    for _ in range(3):
        twin.step(list(grads))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_expanded_gradients(backend, hyper, dtype):
    twin = Twin([numbers(n, 40, dtype=dtype, seed=n) for n in (1, 26)], backend, hyper)
    whole, row = numbers(1, dtype=dtype, seed=7), numbers(40, dtype=dtype, seed=8)
    twin.step([whole.expand(1, 40), whole.expand(26, 40)])
    twin.step([row.expand(1, 40), row.expand(26, 40)])
    twin.run(1)


@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_lazily_negated_gradients(backend, hyper, dtype):
    pairs = numbers(1025, 2, dtype=dtype, seed=5)
    grad = torch.view_as_complex(pairs).conj().imag
    assert grad.is_neg()
    negated = torch._neg_view(numbers(1025, dtype=dtype, seed=6))
    twin = Twin([numbers(1025, dtype=dtype), numbers(1025, dtype=dtype, seed=1)], backend, hyper)
    for _ in range(2):
        twin.step([grad.detach(), negated])


def test_gradients_that_are_part_of_a_graph(backend):
    twin = Twin([numbers(33)], backend, HYPER["momentum"])
    for params in (twin.mine, twin.other):
        loss = params[0].pow(3).sum()
        (params[0].grad,) = torch.autograd.grad(loss, params, create_graph=True)
        assert params[0].grad.requires_grad
    for optimizer in twin.both:
        optimizer.step()
    twin.check()
    assert not momentum(twin.opt, twin.mine[0]).requires_grad
    for params in (twin.mine, twin.other):
        params[0].grad = None  # the graph holds the parameter, and the parameter the graph


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", ["momentum-decay", "nesterov"])
def test_momenta_in_every_layout_after_loading(backend, hyper, dtype):
    layouts = every_layout(dtype, 20)
    twin = Twin([numbers(*b.shape, dtype=dtype) for b in layouts.values()], backend, HYPER[hyper])
    twin.step()
    for optimizer in twin.both:
        state = optimizer.state_dict()
        for key, buffer in enumerate(layouts.values()):
            state["state"][key] = {"momentum_buffer": same_layout(buffer)}
        optimizer.load_state_dict(state)
    twin.check()
    twin.run(3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", ["momentum", "momentum-decay", "nesterov", "maximize-all"])
def test_gradients_that_are_their_momentum_buffers(backend, hyper, dtype):
    twin = Twin([numbers(n, dtype=dtype, seed=n) for n in (0, 1, 1025)], backend, HYPER[hyper])
    twin.run(2)
    for _ in range(2):
        for optimizer, params in zip(twin.both, (twin.mine, twin.other), strict=True):
            params[1].grad = momentum(optimizer, params[1])
            params[2].grad = momentum(optimizer, params[2]).view(-1)  # the same memory
            optimizer.step()
        twin.check()
    twin.run(1)


@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_what_lies_between_the_elements_is_left_alone(backend, hyper):
    whole = numbers(50, 40, seed=3)
    frame = whole.clone()
    inside = whole[5:45:2, 3:30:3].detach().requires_grad_()
    twin = Twin([inside], backend, hyper)
    optimizer = FusedDecaySGD([inside], lr=0.1, backend=backend, **hyper)
    for grads in (twin.draw(), twin.draw()):
        inside.grad = grads[0].clone()
        optimizer.step()
        twin.step(grads)
    assert_same_bits(inside, twin.other[0])
    frame[5:45:2, 3:30:3] = whole[5:45:2, 3:30:3]
    assert_same_bits(whole, frame, "the storage around the parameter")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_neighbours_in_one_storage(backend, dtype):
    flat = numbers(4099, dtype=dtype, seed=1)
    cuts = [0, 1, 2, 5, 14, 31, 64, 1089, 2113, 4099]

    def views(storage):
        return [storage[a:b].requires_grad_() for a, b in itertools.pairwise(cuts)]

    twin = Twin([flat], backend, HYPER["nesterov-decay"])
    shared = flat.clone()
    params = views(shared)
    optimizer = FusedDecaySGD(params, lr=0.1, backend=backend, **HYPER["nesterov-decay"])
    for _ in range(3):
        (grad,) = twin.draw()
        for p, g in zip(params, views(grad.clone()), strict=True):
            p.grad = g.detach()
        optimizer.step()
        twin.step([grad])
        assert_same_bits(shared, twin.other[0])
