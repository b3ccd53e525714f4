"""torch.compile: the same bits, no graph for a step, none anew for a new rate; and the operator."""

import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest
import torch
from cases import HYPER, with_lr
from support.bits import assert_same_bits
from support.twin import assert_same_state, leaf, numbers, sgd
from torch._dynamo.testing import CompileCounterWithBackend
from torch.optim import lr_scheduler

from lrfused import CosineAnnealingLR, FusedDecaySGD, OneCycleLR, update_in_backward

STEPS = 100
NO_COMPILER = shutil.which("g++") is None and shutil.which("clang++") is None
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own
needs_compiler = pytest.mark.skipif(NO_COMPILER, reason="inductor needs a C++ compiler")
INDUCTOR = pytest.param("inductor", marks=needs_compiler)


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def network():
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    with torch.no_grad():
        for seed, p in enumerate(model.parameters()):
            p.copy_(numbers(*p.shape, seed=seed))
    return model


def batch(step):
    return numbers(4, 8, seed=step) / 8


class Runs:
    """Three runs beside each other: ours compiled, ours eager, and torch's."""

    def __init__(self, backend, **kwargs):
        self.models = [network() for _ in range(3)]
        hyper = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3}
        schedule = {"schedule": OneCycleLR(0.02, total_steps=STEPS + 2)}
        params = [model.parameters() for model in self.models]
        self.opts = [FusedDecaySGD(p, **schedule, **hyper, **kwargs) for p in params[:2]]
        self.opts.append(sgd(params[2], **hyper))
        self.scheduler = lr_scheduler.OneCycleLR(self.opts[2], 0.02, total_steps=STEPS + 2)
        self.counter = CompileCounterWithBackend(backend)

    def check(self, when):
        assert_same_state(self.opts[0], self.opts[1], f"beside eager, {when}")
        assert_same_state(self.opts[0], self.opts[2], f"beside torch, {when}")


@pytest.mark.parametrize("backend", ["eager", "aot_eager", INDUCTOR])
def test_a_compiled_step(backend):
    runs = Runs(backend)
    compiled = torch.compile(runs.opts[0].step, backend=runs.counter)
    for step in range(STEPS):
        for model in runs.models:
            model(batch(step)).square().mean().backward()
        compiled()
        runs.opts[1].step()
        runs.opts[2].step()
        runs.scheduler.step()
        for optimizer in runs.opts:
            optimizer.zero_grad()
        runs.check(f"step {step}")
    assert runs.counter.frame_count <= 2


@pytest.mark.parametrize("capturable", [False, True], ids=["", "capturable"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_train_step(backend, capturable):
    runs = Runs(backend, capturable=capturable)

    def train(model, optimizer, inputs):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()

    compiled = torch.compile(train, backend=runs.counter)
    for step in range(STEPS):
        for each, model, optimizer in zip(
            (compiled, train, train), runs.models, runs.opts, strict=True
        ):
            each(model, optimizer, batch(step))
        runs.scheduler.step()
        runs.check(f"step {step}")
    assert 1 <= runs.counter.frame_count <= 2


@needs_compiler
def test_a_train_step_compiled_by_inductor_updates_as_its_gradients_say():
    """The compiled model's gradients are its own; from them the update is the same to the bit."""
    runs = Runs("inductor")
    model, other = runs.models[:2]

    @torch.compile(backend=runs.counter)
    def train(inputs):
        model(inputs).square().mean().backward()
        runs.opts[0].step()

    for step in range(5):
        train(batch(step))
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            q.grad = p.grad.clone()
        runs.opts[0].zero_grad()
        runs.opts[1].step()
        assert_same_state(runs.opts[0], runs.opts[1], f"step {step}")


def test_hooks_and_a_closure_in_a_compiled_step():
    p = leaf(numbers(9))
    ours = FusedDecaySGD([p], lr=0.1, schedule=CosineAnnealingLR(9))
    seen = []
    ours.register_step_pre_hook(lambda *_: seen.append("before"))
    ours.register_step_post_hook(lambda *_: seen.append("after"))

    def closure():
        loss = p.square().sum()
        loss.backward()
        return loss

    loss = torch.compile(ours.step, backend="eager")(closure)
    assert loss.item() == numbers(9).square().sum().item()
    assert seen == ["before", "after"]
    assert ours.scheduler.last_epoch == 1


def test_a_subclass_with_a_step_of_its_own():
    class Counting(FusedDecaySGD):
        steps = 0

        def step(self, closure=None):
            self.steps += 1
            return super().step(closure)

    p = leaf(numbers(9))
    ours = Counting([p], lr=0.1)
    hooked = []
    ours.register_step_pre_hook(lambda *_: hooked.append(1))
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(ours.step, backend=counter)
    for _ in range(5):
        p.grad = numbers(9)
        compiled()
    assert ours.steps == 5
    assert counter.frame_count == 0


def test_updates_in_the_backward_pass_of_a_compiled_model():
    runs = Runs("aot_eager")
    update_in_backward(runs.opts[0])
    compiled = torch.compile(runs.models[0], backend=runs.counter)
    for step in range(10):
        for model in (compiled, *runs.models[1:]):
            model(batch(step)).square().mean().backward()
        assert all(p.grad is None for p in runs.models[0].parameters())
        for optimizer in runs.opts:
            optimizer.step()
            optimizer.zero_grad()
        runs.scheduler.step()
        runs.check(f"step {step}")
    assert runs.counter.frame_count == 1


# -- the operator ----------------------------------------------------------------------------


def arguments(hyper, dtype=torch.float32, seed=0):
    """Draw what the operator takes, and the same for FusedDecaySGD."""
    hyper = {k: float(v) if type(v) is int else v for k, v in with_lr(hyper).items()}
    lr = torch.tensor(hyper.pop("lr"), dtype=torch.float64)
    shapes = [(33, 5), (0,), (1025,)]
    params, grads, buffers = (
        [numbers(*shape, dtype=dtype, seed=seed + 10 * i + k) for i, shape in enumerate(shapes)]
        for k in range(3)
    )
    return (params, grads, buffers if hyper.get("momentum") else [], lr), hyper


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("hyper", HYPER.values(), ids=HYPER)
def test_the_operator_computes_a_steps_bits(hyper, dtype):
    first, (args, hyper) = True, arguments(hyper, dtype)
    params, grads, buffers, lr = args
    mine = [leaf(p) for p in params]
    ours = FusedDecaySGD(mine, lr=float(lr), **hyper)
    for step in range(3):
        for p, grad in zip(mine, grads, strict=True):
            p.grad = grad * (step + 1)
        ours.step()
        versions = [p._version for p in params]
        torch.ops.lrfused.sgd_(
            params, [grad * (step + 1) for grad in grads], buffers, lr, **hyper, first=first
        )
        assert all(p._version > v for p, v in zip(params, versions, strict=True))
        first = False
        for i, (got, want) in enumerate(zip(params, mine, strict=True)):
            assert_same_bits(got, want)
            if buffers:
                assert_same_bits(buffers[i], ours.state[want]["momentum_buffer"])


def test_the_documentation_shows_the_operators_schema():
    page = Path(__file__).resolve().parent.parent / "docs" / "compile.md"
    assert str(torch.ops.lrfused.sgd_.default._schema) in " ".join(page.read_text().split())


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("hyper", ["plain", "nesterov-decay", "maximize-all"])
def test_the_operators_schema_says_what_it_does(hyper, first):
    args, hyper = arguments(HYPER[hyper])
    torch.library.opcheck(torch.ops.lrfused.sgd_.default, args, {**hyper, "first": first})


@pytest.mark.parametrize("backend", ["eager", "aot_eager", INDUCTOR])
def test_the_operator_in_one_graph_that_no_rate_compiles_anew(backend):
    args, hyper = arguments(HYPER["nesterov-decay"])
    other, _ = arguments(HYPER["nesterov-decay"])
    counter = CompileCounterWithBackend(backend)

    def train(params, grads, buffers, lr):
        grads = [-grad.neg() for grad in grads]
        torch.ops.lrfused.sgd_(params, grads, buffers, lr, **hyper)
        return [p.abs() for p in params]

    compiled = torch.compile(train, backend=counter, fullgraph=True)
    for step in range(10):
        got = compiled(*args[:3], args[3] * 0.9**step)
        want = train(*other[:3], other[3] * 0.9**step)
        for a, b in zip([*got, *args[0], *args[2]], [*want, *other[0], *other[2]], strict=True):
            assert_same_bits(a, b)
        if step == 0:
            graphs = counter.frame_count
    assert counter.frame_count == graphs


def test_the_operator_refuses_lists_of_other_lengths():
    (params, grads, buffers, lr), hyper = arguments(HYPER["momentum"])
    for bad in ((params, grads[1:], buffers), (params, grads, buffers[1:])):
        with pytest.raises(ValueError, match="momentum_buffers"):
            torch.ops.lrfused.sgd_(*bad, lr, **hyper)
    with pytest.raises(ValueError, match="momentum_buffers"):
        torch.ops.lrfused.sgd_(params, grads, buffers, lr)
    with pytest.raises(RuntimeError, match="dtype"):
        torch.ops.lrfused.sgd_(params, [g.double() for g in grads], buffers, lr, **hyper)


def test_the_operator_takes_each_threads_rate():
    def descend(rate):
        (p,) = params = [torch.zeros(3)]
        for _ in range(200):
            torch.ops.lrfused.sgd_(params, [torch.ones(3)], [], torch.tensor(rate))
        return p

    rates = [2.0**-k for k in range(8)]
    with ThreadPoolExecutor(len(rates)) as pool:
        for rate, p in zip(rates, pool.map(descend, rates), strict=True):
            assert p.tolist() == [-200 * rate] * 3


def test_the_operator_lets_go_of_the_tensors():
    memory = [numpy.ones(3, numpy.float32) for _ in range(3)]
    seen = [weakref.ref(array) for array in memory]
    p, grad, buffer = map(torch.from_numpy, memory)
    torch.ops.lrfused.sgd_([p], [grad], [buffer], torch.tensor(0.5), momentum=0.9)
    del memory, p, grad, buffer
    assert [array() for array in seen] == [None] * 3
