"""A FusedDecaySGD is a torch.optim.SGD, for programs that ask; nothing of SGD's own shows."""

import copy
import pickle

import pytest
import torch
from support.bits import assert_same_bits
from support.twin import assert_same_state, leaf, numbers, sgd
from torch.optim import SGD

from lrfused import ExponentialLR, FusedDecaySGD, fuse

pytestmark = pytest.mark.backends(
    "host", reason="the class is the same on every backend, and test_update.py compares their bits"
)


def made(backend, cls=FusedDecaySGD, **kwargs):
    return cls([leaf(numbers(9))], lr=0.1, momentum=0.9, backend=backend, **kwargs)


def test_it_is_an_sgd(backend):
    optimizer = made(backend)
    assert isinstance(optimizer, SGD)
    assert isinstance(copy.deepcopy(optimizer), SGD)
    assert isinstance(pickle.loads(pickle.dumps(optimizer)), SGD)
    assert type(optimizer) is not SGD


def test_sgds_own_methods_do_not_run(backend, monkeypatch):
    def spy(name):
        right = getattr(SGD, name)

        def method(self, *args, **kwargs):
            assert not isinstance(self, FusedDecaySGD), name
            return right(self, *args, **kwargs)

        monkeypatch.setattr(SGD, name, method)

    for name in ("__init__", "step", "_init_group"):
        spy(name)
    optimizer = made(backend, schedule=ExponentialLR(0.9))
    (p,) = optimizer.param_groups[0]["params"]
    p.grad = numbers(9, seed=1)
    optimizer.step()
    assert set(optimizer.defaults) >= {"schedule", "capturable", "nesterov", "differentiable"}


@pytest.mark.parametrize("fused", [None, False, True])
def test_amp_scaling_is_opted_into_by_amp_alone(backend, fused):
    assert not made(backend, fused=fused)._step_supports_amp_scaling
    assert made(backend, fused=fused, amp="fused")._step_supports_amp_scaling


def test_fuse_takes_torchs_own_alone(backend):
    optimizer = made(backend)
    with pytest.raises(TypeError, match="FusedDecaySGD"):
        fuse(optimizer)

    class Own(SGD):
        def step(self, closure=None):
            return closure

    with pytest.raises(TypeError, match="Own"):
        fuse(Own([leaf(numbers(9))], lr=0.1))


def test_hooks_of_sgd_and_of_the_profiler_run_once(backend):
    sgd([leaf(numbers(9))], lr=0.1)  # torch's constructor wraps SGD.step
    optimizer = made(backend)
    (p,) = optimizer.param_groups[0]["params"]
    p.grad = numbers(9, seed=1)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimizer.step()
    assert calls == ["before", "after"]
    ranges = [e.key for e in profile.key_averages() if e.key.startswith("Optimizer.step#")]
    assert ranges == ["Optimizer.step#FusedDecaySGD.step"]


def test_another_base_beside_it_is_constructed_too(backend):
    class Counted(torch.optim.Optimizer):
        def __init__(self, *args, **kwargs):
            self.constructed = True
            super().__init__(*args, **kwargs)

    class Both(FusedDecaySGD, Counted):
        pass

    optimizer = made(backend, Both, schedule=ExponentialLR(0.9))
    assert optimizer.constructed
    assert optimizer.scheduler.get_last_lr() == [0.1]


class Scaled(torch.Tensor):
    """A tensor that an operation takes for a quarter of itself."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        def plain(value):
            return value.as_subclass(torch.Tensor) * 0.25 if isinstance(value, cls) else value

        with torch._C.DisableTorchFunctionSubclass():
            return func(*map(plain, args), **(kwargs or {}))


@pytest.mark.backends("host", "emulated", reason="the gradient is sorted out on the host")
@pytest.mark.parametrize("hyper", [{}, {"weight_decay": 0.1}, {"momentum": 0.9}], ids=str)
def test_a_gradient_of_a_subclass_is_asked(backend, hyper):
    params = [[leaf(numbers(9, seed=i)) for i in range(3)] for _ in range(2)]
    optimizer = FusedDecaySGD(params[0], lr=0.1, backend=backend, **hyper)
    theirs = sgd(params[1], lr=0.1, **hyper)
    for step in range(4):
        for own in params:
            for i, p in enumerate(own):
                p.grad = numbers(9, seed=10 * step + i)
                if i == 1 and step > 0:
                    p.grad = p.grad.as_subclass(Scaled)
        optimizer.step()
        theirs.step()
        assert_same_state(optimizer, theirs)


def test_torchs_functional_map_does_not_take_it_for_sgd():
    optim = pytest.importorskip("torch.distributed.optim")
    with pytest.raises(ValueError, match="FusedDecaySGD"):
        optim.as_functional_optim(FusedDecaySGD, lr=0.1)


def test_torchs_optimizer_in_backward_takes_it(backend):
    optim = pytest.importorskip("torch.distributed.optim")
    mine, other = leaf(numbers(9)), leaf(numbers(9))
    hyper = {"lr": 0.1, "momentum": 0.9}
    optim._apply_optimizer_in_backward(FusedDecaySGD, [mine], {**hyper, "backend": backend})
    theirs = sgd([other], **hyper)
    for step in range(3):
        for p in (mine, other):
            (p.square() * numbers(9, seed=step)).sum().backward()
        theirs.step()
        theirs.zero_grad()
        assert mine.grad is None
        assert_same_bits(mine, other)


def test_old_states_get_torchs_defaults(backend):
    optimizer, theirs = made(backend), sgd([leaf(numbers(9))], lr=0.1, momentum=0.9)
    old = theirs.state_dict()
    for key in ("nesterov", "maximize", "foreach", "differentiable", "fused"):
        del old["param_groups"][0][key]
    optimizer.load_state_dict(old)
    group = optimizer.param_groups[0]
    assert [group[key] for key in ("nesterov", "maximize", "differentiable")] == [False] * 3
    assert group["fused"] is None
    assert_same_state(optimizer, theirs)
    optimizer.__setstate__({"note": 1})  # as a partial dict of a framework
    assert optimizer.note == 1
    assert optimizer.param_groups[0] is group
