"""The tensors of a Triton step: found by the extension, or by Python where it is not there."""

import os
import subprocess
import sys

import pytest
import torch
from cases import DTYPES, HYPER
from support.masters import Masters, of_each_kind, values_of
from support.tape import not_emulated
from support.twin import Twin, leaf, numbers

from lrfused import FusedDecaySGD

if why := not_emulated("triton"):
    pytest.skip(f"triton: {why}", allow_module_level=True)

from lrfused.backends.triton import device_step, slots

needs_extension = pytest.mark.skipif(device_step._C is None, reason="no extension here")


@pytest.fixture(params=["extension", "python"])
def gather(request, monkeypatch):
    """Choose what finds the tensors."""
    if request.param == "python":
        monkeypatch.setattr(device_step, "_C", None)
    elif device_step._C is None:
        pytest.skip("no extension here")


# -- both find the same --------------------------------------------------------------------------


ODDITIES = {
    "no gradient": lambda p: setattr(p, "grad", None),
    "gradient with gaps": lambda p: setattr(p, "grad", p.grad.repeat_interleave(2)[::2]),
    "sparse gradient": lambda p: setattr(p, "grad", p.grad.to_sparse()),
    "negative view": lambda p: setattr(p, "grad", torch._neg_view(p.grad)),
    "zeros without memory": lambda p: setattr(
        p, "grad", torch._efficientzerotensor(p.shape, dtype=p.dtype, device="cpu")
    ),
}


def both_find(params, groups=None, state=None, key=None, cells=(0.1, 0.0)):
    hyper = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.01}
    hyper |= {"nesterov": True, "maximize": False}
    groups = groups or [{**hyper, "params": params}]
    state = {} if state is None else state
    cells = [*cells] * len(groups)
    ours = slots.gather(groups, state, cells, key, "cpu")
    kept = device_step.MASTERS[key]
    theirs = device_step._C.gather(groups, state, cells, kept, "cpu")
    assert ours.slots.tolist() == theirs.slots.tolist()
    assert (ours.valid, ours.firsts, ours.places) == (theirs.valid, theirs.firsts, theirs.places)
    assert [(g, id(p)) for g, p in ours.odd] == [(g, id(p)) for g, p in theirs.odd]
    assert list(map(id, ours.params)) == list(map(id, theirs.params))
    return ours


def with_gradients(*values):
    params = [leaf(value) for value in values]
    for i, p in enumerate(params):
        p.grad = numbers(*p.shape, dtype=p.dtype, seed=i + 1)
    return params


@needs_extension
@pytest.mark.parametrize("key", [None, "master", "master_remainder"])
@pytest.mark.parametrize("momenta", [False, True])
def test_parameters_of_every_dtype(key, momenta):
    params = with_gradients(*[numbers(n, dtype=d) for n in (0, 1, 33) for d in DTYPES])
    state = {}
    for p in params[::2]:
        wide = torch.float32 if key and p.dtype.itemsize == 2 else p.dtype
        own = state[p] = {"momentum_buffer": torch.zeros(p.shape, dtype=wide)} if momenta else {}
        if key and p.dtype.itemsize == 2:
            kept = torch.float32 if key == "master" else torch.int16
            own[key] = torch.zeros(p.shape, dtype=kept)
    found = both_find(params, state=state, key=key)
    assert found.params
    assert bool(found.odd) == (key == "master_remainder")  # fp16 has none


@needs_extension
@pytest.mark.parametrize("oddity", ODDITIES)
def test_odd_gradients(oddity):
    params = with_gradients(numbers(33), numbers(7), numbers(5))
    ODDITIES[oddity](params[1])
    found = both_find(params)
    assert found.places == 3
    assert len(found.params) == 2
    assert len(found.odd) == (oddity != "no gradient")


@needs_extension
def test_a_gradient_that_is_its_momentum_buffer_is_odd():
    params = with_gradients(numbers(33), numbers(7), numbers(0))
    buffers = [torch.ones(33), params[1].grad, params[2].grad]
    state = {p: {"momentum_buffer": b} for p, b in zip(params, buffers, strict=True)}
    found = both_find(params, state=state)
    assert [p is params[1] for _, p in found.odd] == [True]


LAYOUTS = {
    "transposed": lambda: numbers(6, 5).t(),
    "channels last": lambda: numbers(4, 3, 5, 7).to(memory_format=torch.channels_last),
    "gaps": lambda: numbers(9)[::2],
    "misaligned": lambda: numbers(9)[1:],
    "overlapping": lambda: numbers(3, 1).expand(3, 4),
    "of size 1": lambda: numbers(2, 1, 3)[:, 0],
    "at an odd address": lambda: torch.frombuffer(memoryview(bytearray(41))[1:], dtype=torch.float),
}


@needs_extension
@pytest.mark.parametrize("layout", LAYOUTS)
def test_parameters_of_every_layout(layout):
    p = LAYOUTS[layout]().detach().requires_grad_()
    for grad in (torch.ones(p.shape), torch.empty_strided(p.shape, p.stride())):
        p.grad = grad
        both_find([p])


@needs_extension
@pytest.mark.parametrize("change", [
    {"weight_decay": 1e39}, {"momentum": 1e39}, {"momentum": 1e39, "nesterov": False},
    {"dampening": "0"}, {"weight_decay": float("inf")}, {"momentum": 0.0, "nesterov": False},
], ids=str)  # fmt: skip
def test_numbers_that_are_none_or_out_of_range(change):
    hyper = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.01}
    hyper |= {"nesterov": True, "maximize": False}
    groups = [
        {**hyper, "params": with_gradients(numbers(3))},
        {**hyper, **change, "params": with_gradients(numbers(5), numbers(7))},
    ]
    both_find(None, groups)
    both_find(None, groups, cells=(1e39, 0.0))


@needs_extension
def test_a_parameter_of_inference_mode_and_one_of_a_class_of_its_own():
    class Own(torch.Tensor):
        pass

    with torch.inference_mode():
        made = torch.ones(3)
        made.grad = torch.ones(3)
    own = torch.ones(3).as_subclass(Own)
    own.grad = torch.ones(3)
    assert len(both_find([made, own, *with_gradients(numbers(3))]).odd) == 2


def shared(name):
    """Return parameters with gradients, and a state, of which some share memory."""
    a, b, c = params = with_gradients(numbers(40), numbers(40, seed=1), numbers(40, seed=2))
    memory = numbers(60, seed=3)
    state = {p: {"momentum_buffer": numbers(40, seed=4 + i)} for i, p in enumerate(params)}
    if name == "parameters":
        c.data = a.data
    elif name == "a part of parameters":
        a.data, c.data = memory[:40], memory[20:]
    elif name == "momenta":
        state[c] = state[a]
    elif name == "momentum and parameter":
        state[b]["momentum_buffer"] = b.data
    elif name == "gradient and parameter":
        b.grad = b.data
    elif name == "a part of gradient and parameter":
        b.data, b.grad = memory[:40], memory[20:]
    elif name == "a part of gradient and momentum":
        state[b]["momentum_buffer"], b.grad = memory[:40], memory[20:]
    elif name == "gradients":
        c.grad = a.grad
    elif name == "nothing, as neighbours":
        a.data, b.data, c.data = numbers(120).split(40)
    elif name == "an odd one and a plain one":
        a.data = numbers(80, seed=5)[::2]
        b.data = torch.empty(0).set_(a.data.untyped_storage(), 10, (40,), (1,))
    elif name == "two odd ones":
        for p in params:
            p.data = memory[:40][::2].repeat(2)[::1] if p is c else memory[1:41]
            p.grad = numbers(80, seed=6)[::2] if p is not c else numbers(40)
    elif name == "nothing, of no elements":
        a.grad = None
        a.data, a.grad = numbers(0), numbers(0)
        c.grad = None
        c.data, c.grad = numbers(0), numbers(0)
        state[a]["momentum_buffer"] = state[c]["momentum_buffer"] = numbers(0)
    return params, state


@needs_extension
@pytest.mark.parametrize(("name", "odd"), [
    ("parameters", 3), ("a part of parameters", 3), ("momenta", 3), ("momentum and parameter", 1),
    ("gradient and parameter", 0), ("a part of gradient and parameter", 1),
    ("a part of gradient and momentum", 1), ("gradients", 0), ("nothing, of no elements", 0),
    ("nothing, as neighbours", 0), ("an odd one and a plain one", 3), ("two odd ones", 3),
])  # fmt: skip
def test_tensors_that_share_memory(name, odd):
    params, state = shared(name)
    for _ in range(2):
        assert len(both_find(params, state=state).odd) == odd


@needs_extension
def test_a_gradient_of_a_class_of_its_own():
    class Own(torch.Tensor):
        pass

    params = with_gradients(numbers(3), numbers(4), numbers(5))
    params[1].grad = params[1].grad.as_subclass(Own)
    assert both_find(params).odd == [(0, params[1])]


# -- and the step makes the same of it -----------------------------------------------------------


@pytest.mark.parametrize("hyper", HYPER)
def test_a_step_has_torchs_bits(gather, hyper):
    Twin([numbers(n, seed=n) for n in (0, 1, 33, 1025)], "triton", HYPER[hyper]).run(3)


@of_each_kind
def test_masters_are_made_and_updated(gather, dtype, kind):
    pair = Masters(values_of((1, 33), dtype), kind, "triton", HYPER["nesterov-decay"])
    for step in range(3):
        pair.step(step, wide=step == 2)


def test_tensors_that_moved_are_found(gather, tape):
    twin = Twin([numbers(33), numbers(7, seed=1)], "triton", HYPER["momentum-decay"])
    twin.run(2)
    for own in twin.opt.state.values():
        own["momentum_buffer"] = own["momentum_buffer"].clone()
    before = tape.uploads
    twin.step()
    assert tape.uploads == before + 1  # the slots, and no chunks
    twin.opt.param_groups[0]["params"].reverse()
    twin.mine.reverse()
    twin.oracle.param_groups[0]["params"].reverse()
    twin.other.reverse()
    twin.run(2)


def test_autograd_sees_what_was_written(gather):
    p = leaf(numbers(33))
    opt = FusedDecaySGD([p], lr=0.1, momentum=0.9, backend="triton")
    for step in range(2):
        p.grad = numbers(33, seed=1)
        written = [p] if step == 0 else [p, opt.state[p]["momentum_buffer"]]
        before = [tensor._version for tensor in written]
        opt.step()
        assert all(t._version > v for t, v in zip(written, before, strict=True))


def test_only_plain_parameters_are_left_to_the_kernels(gather):
    twin = Twin([numbers(33), numbers(7, seed=1)], "triton", HYPER["momentum-decay"])
    for _ in range(2):
        grads = twin.draw()
        grads[1] = grads[1].repeat_interleave(2)[::2]
        twin.step(grads)


def test_a_captured_step_is_replayed(gather, tape):
    p = leaf(numbers(33))
    p.grad = numbers(33, seed=1)
    opt = FusedDecaySGD([p], lr=0.1, momentum=0.9, backend="triton")
    opt.step()
    opt.step()
    tape.capture(opt.step)
    before = p.detach().clone()
    tape.replay()
    assert not torch.equal(p, before)


def test_without_the_extension_the_self_test_passes(tmp_path):
    code = (
        "import sys; sys.modules['lrfused._C'] = None\n"
        "import torch, lrfused\n"
        "from lrfused.backends.triton import device_step\n"
        "p = torch.ones(9, requires_grad=True)\n"
        "lrfused.FusedDecaySGD([p], lr=0.1, backend='triton')\n"
        "print(device_step._C, lrfused.backends.available()['compiled'] is None)\n"
    )
    none = {**os.environ, "LRFUSED_BUILD": "never", "LRFUSED_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=none)
    assert done.stdout.split() == ["None", "False"], done.stderr
