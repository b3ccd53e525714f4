"""Tensors and groups that the user replaces between two steps: no step trusts the last one's."""

import pytest
import torch
from cases import DTYPES, HYPER
from support.twin import Twin, leaf, momentum, numbers

HYPERS = {name: HYPER[name] for name in ("plain", "nesterov-decay")}
SQUARE = (40, 40)


def twin_of(backend, hyper, *shapes, dtype=torch.float32):
    return Twin([numbers(*s, dtype=dtype, seed=i) for i, s in enumerate(shapes)], backend, hyper)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_a_gradient_transposed_at_the_same_address(backend, hyper, dtype):
    twin = twin_of(backend, hyper, SQUARE, (33,), dtype=dtype)
    twin.run(2)
    for _ in range(3):
        for params in (twin.mine, twin.other):
            address = params[0].grad.data_ptr()
            params[0].grad = params[0].grad.t()
            assert params[0].grad.data_ptr() == address
        for optimizer in twin.both:
            optimizer.step()
        twin.check()


@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_a_parameter_transposed_at_the_same_address(backend, hyper):
    twin = twin_of(backend, hyper, SQUARE, (33,))
    twin.run(2)
    for params in (twin.mine, twin.other):
        params[0].data = params[0].data.t()
    twin.run(2)


def test_a_momentum_transposed_at_the_same_address(backend):
    twin = twin_of(backend, HYPER["momentum-decay"], SQUARE, (33,))
    twin.run(2)
    for optimizer, params in zip(twin.both, (twin.mine, twin.other), strict=True):
        state = optimizer.state[params[0]]
        state["momentum_buffer"] = state["momentum_buffer"].t()
    twin.run(2)


def test_a_parameter_shortened_at_the_same_address(backend):
    twin = twin_of(backend, {}, (2000,), (33,))
    twin.run(2)
    for params in (twin.mine, twin.other):
        params[0].grad = None
        params[0].data = params[0].data[:1500]
    twin.run(2)
    for params in (twin.mine, twin.other):
        params[0].grad = None
        params[0].data = params[0].data[:0]
    twin.run(2)


@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_gradients_at_ever_new_addresses(backend, hyper):
    twin = twin_of(backend, hyper, (1025,), (33,), (7, 11))
    kept = []
    for step in range(6):
        twin.step()
        kept.extend(p.grad for p in twin.mine)
        for params in (twin.mine, twin.other):
            if step % 2:
                params[0].grad, params[1].grad = None, None


@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_gradients_that_parameters_exchange(backend, hyper):
    twin = twin_of(backend, hyper, (1025,), (1025,), (1025,))
    twin.run(2)
    for params in (twin.mine, twin.other):
        grads = [p.grad for p in params]
        for p, grad in zip(params, [grads[1], grads[2], grads[0]], strict=True):
            p.grad = grad
    for optimizer in twin.both:
        optimizer.step()
    twin.check()


def test_one_gradient_for_two_parameters(backend):
    twin = twin_of(backend, HYPER["nesterov-decay"], (1025,), (1025,))
    for params in (twin.mine, twin.other):
        params[0].grad = params[1].grad = numbers(1025, seed=8)
    for _ in range(3):
        for optimizer in twin.both:
            optimizer.step()
        twin.check()


@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_data_swapped_for_new_storage(backend, hyper):
    twin = twin_of(backend, hyper, (1025,), (33,))
    twin.run(2)
    for params in (twin.mine, twin.other):
        params[0].data = numbers(1025, seed=99)
        params[1].data = numbers(66, seed=98)[::2]
    twin.run(2)


@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_parameters_exchanged_in_the_group(backend, hyper):
    twin = twin_of(backend, hyper, (1025,), (33,))
    twin.run(2)
    for optimizer, params in zip(twin.both, (twin.mine, twin.other), strict=True):
        params[1] = leaf(numbers(50, seed=77))
        optimizer.param_groups[0]["params"][1] = params[1]
    twin.run(2)


@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_groups_replaced_by_their_copies(backend, hyper):
    twin = twin_of(backend, hyper, (1025,), (33,))
    for _ in range(3):
        twin.step()
        for optimizer in twin.both:
            groups = optimizer.param_groups
            groups[0] = {**groups[0], "params": list(groups[0]["params"])}
            optimizer.param_groups = list(groups)
            optimizer.param_groups[0]["lr"] *= 0.9
            optimizer.param_groups[0]["weight_decay"] += 0.01


def test_tensors_swapped_in_place(backend):
    twin = twin_of(backend, HYPER["nesterov-decay"], (1025,), (33,))
    twin.run(2)
    for params in (twin.mine, twin.other):
        params[0].grad = None
        torch.utils.swap_tensors(params[0], leaf(numbers(1025, seed=31)))
    twin.run(2)


@pytest.mark.parametrize("clear", ["all", "entry", "none", "key"])
def test_momenta_forgotten_begin_afresh(backend, clear):
    twin = twin_of(backend, HYPER["maximize-all"], (1025,), (33,))
    twin.run(3)
    for optimizer, params in zip(twin.both, (twin.mine, twin.other), strict=True):
        if clear == "all":
            optimizer.state.clear()
        elif clear == "entry":
            del optimizer.state[params[1]]
        elif clear == "none":
            optimizer.state[params[1]]["momentum_buffer"] = None
        else:
            del optimizer.state[params[1]]["momentum_buffer"]
    twin.run(3)


def test_a_momentum_replaced_is_the_one_used(backend):
    twin = twin_of(backend, HYPER["momentum"], (1025,), (33,))
    twin.run(2)
    for optimizer, params in zip(twin.both, (twin.mine, twin.other), strict=True):
        optimizer.state[params[0]]["momentum_buffer"] = numbers(1025, seed=5)
        optimizer.state[params[1]]["momentum_buffer"].fill_(0.3)
    twin.run(2)
    assert momentum(twin.opt, twin.mine[0]) is not None


def test_state_given_before_the_first_step(backend):
    twin = twin_of(backend, HYPER["dampening"], (1025,), (33,))
    for optimizer, params in zip(twin.both, (twin.mine, twin.other), strict=True):
        optimizer.state[params[0]] = {"momentum_buffer": numbers(1025, seed=5)}
    twin.run(2)


def test_a_group_added_between_steps(backend):
    twin = twin_of(backend, HYPER["nesterov-decay"], (1025,), (33,))
    twin.run(2)
    for optimizer, params in zip(twin.both, (twin.mine, twin.other), strict=True):
        params.append(leaf(numbers(70, seed=4)))
        optimizer.add_param_group({"params": [params[2]], "lr": 0.3, "weight_decay": 0})
    twin.run(3)
    for optimizer, params in zip(twin.both, (twin.mine, twin.other), strict=True):
        params.append(leaf(numbers(5, seed=6)))
        optimizer.param_groups[1]["params"].append(params[3])
    twin.run(3)
    for optimizer, params in zip(twin.both, (twin.mine, twin.other), strict=True):
        del optimizer.param_groups[0]["params"][0], params[0]
    twin.run(2)


@pytest.mark.parametrize("to", [torch.float64, torch.bfloat16], ids=str)
def test_a_model_cast_between_steps(backend, to):
    twin = twin_of(backend, {}, (1025,), (33,))
    twin.run(2)
    half = Twin([p.detach().to(to) for p in twin.mine], backend, {})
    for p in twin.mine:
        p.grad = None
        p.data = p.data.to(to)
    for _ in range(2):
        grads = half.draw()
        for p, grad in zip(twin.mine, grads, strict=True):
            p.grad = grad.clone()
        twin.opt.step()
        half.step(grads)
        for p, q in zip(twin.mine, half.other, strict=True):
            assert torch.equal(p, q)
