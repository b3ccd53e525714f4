"""zero_grad: torch's results, in the extension where it can be."""

import contextlib
import gc
import threading
import weakref
from collections import UserDict

import numpy as np
import pytest
import torch
from support.twin import leaf, numbers
from torch import nn
from torch.optim import SGD, Optimizer
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from lrfused import _C, FusedDecaySGD

SIZES = (0, 1, 7, 8, 9, 31, 33, 1023, 1024, 1025, 65_537)


class Subclass(torch.Tensor):
    """A tensor with torch functions of its own."""


def dense():
    p = leaf(numbers(6))
    p.grad = numbers(6, seed=2)
    return p


def of_size(n):
    p = leaf(numbers(n))
    p.grad = numbers(n, seed=2)
    return p


def half():
    p = leaf(numbers(6).bfloat16())
    p.grad = numbers(6).bfloat16()
    return p


def no_gradient():
    return leaf(numbers(3))


def sparse():
    p = leaf(numbers(6))
    p.grad = numbers(6).to_sparse()
    return p


def strided():
    p = leaf(numbers(6))
    p.grad = numbers(12)[::2]
    return p


def expanded():
    p = leaf(numbers(6))
    p.grad = torch.ones(1).expand(6)
    return p


def view_of_a_bucket():
    p = leaf(numbers(6))
    p.grad = numbers(20)[3:9]
    return p


def transposed():
    p = leaf(numbers(3, 4))
    p.grad = numbers(4, 3).T
    return p


def requires_grad():
    p = leaf(numbers(6))
    p.grad = numbers(6).requires_grad_()
    return p


def part_of_a_graph():
    p = leaf(numbers(6))
    (p * p).sum().backward(create_graph=True)
    return p


def subclass():
    p = nn.Parameter(numbers(6).as_subclass(Subclass))
    p.grad = numbers(6).as_subclass(Subclass)
    return p


def gradient_of_a_subclass():
    p = leaf(numbers(6))
    p.grad = numbers(6, seed=2).as_subclass(Subclass)
    return p


def of_inference():
    p = leaf(numbers(6))
    with torch.inference_mode():
        p.grad = torch.ones(6)
    return p


def conjugated():
    p = leaf(torch.ones(3, dtype=torch.complex64))
    p.grad = torch.ones(3, dtype=torch.complex64).conj()
    return p


def copied_on_write():
    p = leaf(numbers(6))
    p.grad = torch._lazy_clone(numbers(6))
    return p


def on_meta():
    p = nn.Parameter(torch.ones(3, device="meta"))
    p.grad = torch.ones(3, device="meta")
    return p


KINDS = [
    dense, half, no_gradient, sparse, strided, view_of_a_bucket, transposed, requires_grad,
    part_of_a_graph, subclass, gradient_of_a_subclass, conjugated, copied_on_write, on_meta,
    expanded,
]  # fmt: skip


def ours(params):
    """Return an optimizer whose zero_grad is ours, of parameters it would not update, too."""
    optimizer = FusedDecaySGD([leaf(numbers(1))], lr=0.1)
    optimizer.param_groups[0]["params"] = list(params)
    return optimizer


def seen(params):
    return [
        p.grad
        if p.grad is None
        else (
            type(p.grad), p.grad.layout, p.grad.requires_grad, p.grad.grad_fn,
            p.grad.device, p.grad.stride() if p.grad.layout == torch.strided else None,
            p.grad._version, None if p.grad.is_meta else p.grad.to_dense().tolist(),
        )
        for p in params
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("set_to_none", [True, False, 0, "yes"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_gradient(kind, set_to_none):
    both = [[dense(), kind(), dense()] for _ in range(2)]
    held = [[p.grad for p in params] for params in both]
    ours(both[0]).zero_grad(set_to_none)
    SGD(both[1], lr=0.1).zero_grad(set_to_none)
    assert seen(both[0]) == seen(both[1])
    for mine, theirs, a, b in zip(*held, *both, strict=True):
        assert (mine is a.grad) == (theirs is b.grad)
        if mine is not None and mine.layout == torch.strided and not mine.is_meta:
            assert torch.equal(mine, theirs)


def test_what_torch_cannot_fill_raises_torchs_error():
    both = [[dense(), of_inference(), dense()] for _ in range(2)]
    errors = []
    for optimizer in (ours(both[0]), SGD(both[1], lr=0.1)):
        with pytest.raises(RuntimeError) as caught:
            optimizer.zero_grad(set_to_none=False)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    ours(both[0]).zero_grad()
    assert all(p.grad is None for p in both[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_every_size(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        params = [of_size(n) for n in SIZES] + [half()]
        grads = [p.grad for p in params]
        for _ in range(30):  # threads are tried meanwhile
            for g in grads:
                g.fill_(1)
            ours(params).zero_grad(set_to_none=False)
            assert not any(g.any() for g in grads)
            assert all(p.grad is g for p, g in zip(params, grads, strict=True))
    finally:
        torch.set_num_threads(before)


def test_the_bytes_around_a_gradient_stay():
    bucket = torch.ones(100, dtype=torch.bfloat16)
    p = leaf(torch.ones(7, dtype=torch.bfloat16))
    p.grad = bucket[3:10]
    ours([p]).zero_grad(set_to_none=False)
    assert bucket.tolist() == [1] * 3 + [0] * 7 + [1] * 90


def test_autograd_notices_that_gradients_were_filled():
    p = dense()
    saved = p.grad
    out = (saved * leaf(torch.ones(6))).sum()
    ours([p]).zero_grad(set_to_none=False)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


def test_a_gradient_that_is_freed_may_run_code():
    p, q = dense(), dense()
    optimizer = ours([p, q])
    grad = p.grad
    seen = weakref.finalize(grad, lambda: optimizer.param_groups[0]["params"].clear())
    del grad
    optimizer.zero_grad()
    assert not seen.alive
    assert p.grad is None
    assert q.grad is None


def test_gradients_are_freed():
    p = dense()
    alive = weakref.ref(p.grad)
    ours([p]).zero_grad()
    gc.collect()
    assert alive() is None


def test_a_profiler_sees_it_under_torchs_name():
    optimizer = ours([dense()])
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as seen:
        optimizer.zero_grad()
    assert "Optimizer.zero_grad#FusedDecaySGD.zero_grad" in [e.name for e in seen.events()]


class Functions(TorchFunctionMode):
    """Count the accesses of gradients."""

    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        type(self).count += "grad" in repr(function)
        return function(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    """Count the operators on gradients."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        type(self).count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [Functions, Operators])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_modes_see_what_they_see_of_torchs(mode, set_to_none):
    counts = []
    for optimizer in (ours([dense()]), SGD([dense()], lr=0.1)):
        mode.count = 0
        with mode():
            optimizer.zero_grad(set_to_none)
        counts.append(mode.count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("change", [tuple, lambda groups: [UserDict(g) for g in groups]])
def test_groups_of_other_types(change):
    p = dense()
    optimizer = ours([p])
    optimizer.param_groups = change(optimizer.param_groups)
    optimizer.zero_grad()
    assert p.grad is None


def test_another_thread_may_drop_a_gradient_while_it_is_filled():
    p = of_size(8 << 20)
    optimizer, stop = ours([p]), threading.Event()

    def drop():
        while not stop.wait(0.0005):
            p.grad = None

    thread = threading.Thread(target=drop)
    thread.start()
    for _ in range(10):
        p.grad = torch.ones(8 << 20)
        optimizer.zero_grad(set_to_none=False)
    stop.set()
    thread.join()
    p.grad = grad = torch.ones(8 << 20)
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is grad
    assert not grad.any()


def test_retained_and_hooked_gradients():
    for optimizer in (FusedDecaySGD, SGD):
        p, calls = leaf(numbers(3)), []
        p.register_post_accumulate_grad_hook(lambda p, calls=calls: calls.append(p.grad.clone()))
        p.register_hook(lambda g: g * 2)
        made = optimizer([p], lr=0.1)
        for _ in range(2):
            made.zero_grad()
            (3 * p).sum().backward()
            assert p.grad.tolist() == [6, 6, 6]
        assert len(calls) == 2


def test_without_the_extension_torch_resets_them(monkeypatch):
    from lrfused.integrations import zero_grad

    calls, torchs = [], Optimizer.zero_grad
    monkeypatch.setattr(Optimizer, "zero_grad", lambda *a: (calls.append(a[1:]), torchs(*a)))
    monkeypatch.setattr(zero_grad, "_native", None)
    monkeypatch.setattr(zero_grad, "extension", lambda: None)
    p = leaf(numbers(3))
    optimizer = FusedDecaySGD([p], lr=0.1)
    p.grad = numbers(3, seed=1)
    grad = p.grad
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is grad
    assert not grad.any()
    optimizer.zero_grad()
    assert p.grad is None
    assert calls == [(False,), (True,)]


def test_arguments_of_the_extensions_function():
    for wrong in ((), ([],), ([], True, True)):
        with pytest.raises(TypeError, match="zero_grad takes groups and set_to_none"):
            _C.zero_grad(*wrong)
    with pytest.raises(TypeError, match="keyword"):
        _C.zero_grad([], set_to_none=True)
    with pytest.raises(ValueError, match="ambiguous"):
        _C.zero_grad([{"params": [dense()]}], np.ones(2))
    q = dense()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True):
        assert not _C.zero_grad([{"params": [q]}], True)
    assert q.grad is not None


def test_the_extension_takes_plain_gradients_alone():
    assert _C.zero_grad([{"params": [dense(), no_gradient()]}], True)
    assert _C.zero_grad([{"params": [dense(), view_of_a_bucket(), transposed()]}], False)
    assert _C.zero_grad([{"params": [sparse(), strided(), requires_grad()]}], True)
    for kind in (sparse, strided, requires_grad, part_of_a_graph, subclass, on_meta, expanded):
        with contextlib.suppress(UserWarning):
            q = dense()
            assert not _C.zero_grad([{"params": [q, kind()]}], False)
            assert q.grad.any(), "changed nothing"
    with pytest.raises(KeyError, match="params"):
        _C.zero_grad([{}], True)
    assert not _C.zero_grad(({"params": [dense()]},), True)
    assert not _C.zero_grad([{"params": (dense(),)}], True)
