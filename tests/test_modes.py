"""The program's modes: default device, default dtype, inference mode, FakeTensorMode."""

import contextlib
import copy
import io

import pytest
import torch
from support.bits import assert_same_bits
from support.loops import groups_of
from support.twin import leaf, numbers, rates, sgd
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode

from lrfused import (
    CosineAnnealingLR,
    CyclicLR,
    FusedDecaySGD,
    LambdaLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    fuse,
)

BACKENDS = ["compiled", "reference"]


@contextlib.contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Watching(TorchDispatchMode):
    """A mode such as memory estimators use: it sees every operation, and changes none."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


MODES = {
    "set_default_device": default_device,
    "torch.device": lambda: torch.device("meta"),
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "inference": torch.inference_mode,
    "dispatch": Watching,
    "inference-fake": lambda: nested(torch.inference_mode(), FakeTensorMode()),
}


@contextlib.contextmanager
def nested(*modes):
    with contextlib.ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode)
        yield


@pytest.fixture(params=BACKENDS)
def name(request):
    return request.param


@pytest.fixture(params=[mode for mode in MODES if "fake" not in mode])
def mode(request):
    return MODES[request.param]


@pytest.fixture(params=MODES)
def building_mode(request):
    """In FakeTensorMode, too, an optimizer of real parameters can be made and loaded."""
    return MODES[request.param]


SCHEDULES = {
    "cosine": lambda: CosineAnnealingLR(9),
    "cyclic": lambda: CyclicLR(0.1, 0.4, 3),
    "lambda": lambda: LambdaLR(lambda epoch: 0.9**epoch),
    "sequence": lambda: SequentialLR([StepLR(2), CosineAnnealingLR(5)], [4]),
    "plateau": lambda: [StepLR(3), ReduceLROnPlateau(patience=0, factor=0.5)],
}


class Run:
    """A program's optimizer, made and stepped in the modes that each method is called in."""

    def __init__(self, name, schedule):
        self.name, self.schedule, self.done = name, schedule, 0
        sizes = (33, 1025, 7)
        self.params = [leaf(numbers(n, seed=n)) for n in sizes]
        self.grads = [[numbers(n, seed=10 * step + n) for n in sizes] for step in range(15)]

    def make(self):
        groups = [{"params": [self.params[0]]}, {"params": [self.params[1]], "lr": 0.3}]
        self.optimizer = FusedDecaySGD(
            groups, lr=0.1, momentum=0.9, weight_decay=0.01, backend=self.name, max_grad_norm=9.0,
            schedule=SCHEDULES[self.schedule](),
        )  # fmt: skip

    def steps(self, count):
        for _ in range(count):
            for p, grad in zip(self.params, self.grads[self.done], strict=True):
                p.grad = grad.clone()
            self.optimizer.step()
            if self.schedule == "plateau":
                self.optimizer.scheduler.step(1.0 + self.done)
            self.done += 1

    def join(self):
        group = {"params": [self.params[2]], "lr": 0.2}
        if self.schedule in ("cyclic", "lambda"):  # made for so many groups
            group["schedule"] = StepLR(2)
        self.optimizer.add_param_group(group)

    def write(self):
        self.optimizer.param_groups[0]["lr"] = 0.25

    def save(self):
        self.saved = copy.deepcopy(self.optimizer.state_dict())
        self.params = [leaf(p.detach()) for p in self.params]
        self.make()
        self.join()

    def load(self):
        self.optimizer.load_state_dict(self.saved)

    def results(self):
        state = self.optimizer.state
        momenta = [state[p]["momentum_buffer"].clone() for p in self.params if p in state]
        return [*(p.detach().clone() for p in self.params), *momenta]


def assert_same(run, other):
    assert rates(run.optimizer) == rates(other.optimizer)
    assert_same_bits(run.optimizer.grad_norm, other.optimizer.grad_norm)
    assert run.optimizer.lr_used == other.optimizer.lr_used
    histories = (repr(each.optimizer.lr_history()) for each in (run, other))  # with NaN
    assert len(set(histories)) == 1
    assert run.optimizer.scheduler.last_epoch == other.optimizer.scheduler.last_epoch
    for a, b in zip(run.results(), other.results(), strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_whole_run_in_a_mode_has_the_same_bits(name, mode, schedule):
    run, other = (Run(name, schedule) for _ in range(2))
    for each, modes in ((run, mode), (other, contextlib.nullcontext)):
        with modes():
            each.make()
            each.steps(3)
            each.write()
            each.join()
            each.steps(3)
            each.optimizer.state_dict()
    assert_same(run, other)


@pytest.mark.parametrize("action", ["make", "join", "write", "load"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_is_done_in_a_mode_goes_on_outside_of_it(name, building_mode, schedule, action):
    run, other = (Run(name, schedule) for _ in range(2))
    for each, modes in ((run, building_mode), (other, contextlib.nullcontext)):
        for step in ("make", "join", "write", "load"):
            if step == "load":
                each.save()
            with (modes if step == action else contextlib.nullcontext)():
                getattr(each, step)()
            each.steps(3)
    assert_same(run, other)


@pytest.mark.parametrize("schedule", [lambda: CosineAnnealingLR(50), lambda: LambdaLR(float)])
def test_a_table_that_is_made_later_in_a_mode_has_the_same_numbers(name, mode, schedule):
    optimizers = [
        FusedDecaySGD(groups_of([0.1]), schedule=schedule(), backend=name) for _ in range(2)
    ]
    for optimizer, modes in zip(optimizers, (mode, contextlib.nullcontext), strict=True):
        with modes():
            for _ in range(1030):
                optimizer.step()
    assert rates(optimizers[0]) == rates(optimizers[1])


class Unknown(lr_scheduler.LRScheduler):
    def get_lr(self):
        return [base / (1 + self.last_epoch) for base in self.base_lrs]


@pytest.mark.parametrize("total_steps", [None, 5])
def test_fuse_in_a_mode(building_mode, total_steps):
    def fused():
        optimizer = sgd(groups_of([0.1]), lr=0.1)
        scheduler = Unknown(optimizer) if total_steps else lr_scheduler.StepLR(optimizer, 2)
        return lambda: fuse(optimizer, scheduler, total_steps=total_steps)

    seen = []
    for modes in (building_mode, contextlib.nullcontext):
        make = fused()
        with modes():
            optimizer, handle = make()
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        for _ in range(4):
            optimizer.step()
            handle.step()
        seen.append(rates(optimizer))
    assert seen[0] == seen[1]


def test_cells_that_a_mode_was_on_for_are_in_host_memory_and_may_be_written(building_mode):
    group = groups_of([0.1])[0]
    with building_mode():
        optimizer = FusedDecaySGD([group], schedule=StepLR(1), capturable=True)
        cell = optimizer.param_groups[0]["lr"]
    assert (cell.device.type, cell.dtype, type(cell)) == ("cpu", torch.float64, torch.Tensor)
    assert not cell.is_inference()
    optimizer.step()
    cell.fill_(0.5)
    optimizer.step()
    assert rates(optimizer) == [0.05]


def test_a_scale_that_is_a_number_does_not_follow_the_default_dtype(name):
    p = leaf(numbers(33))
    optimizer = FusedDecaySGD([p], lr=0.1, amp="fused", backend=name)
    optimizer.grad_scale, optimizer.found_inf = 65536.0, torch.tensor(0.0)
    p.grad = numbers(33, seed=1) * 65536.0
    with default_dtype(torch.float16):  # which has no 65,536
        optimizer.step()
    other = leaf(numbers(33))
    other.grad = numbers(33, seed=1)
    sgd([other], lr=0.1).step()
    assert_same_bits(p, other)


# -- FakeTensorMode: parameters without data --------------------------------------------------


def faked(cls, **kwargs):
    """Train a model in FakeTensorMode; return what an estimator of memory reads."""
    with FakeTensorMode():
        model = nn.Linear(3, 2)
        optimizer = cls(model.parameters(), lr=0.1, momentum=0.9, **kwargs)
        for _ in range(3):
            model(torch.randn(4, 3)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return [
            (type(state["momentum_buffer"]), state["momentum_buffer"].shape)
            for state in optimizer.state.values()
        ], rates(optimizer)


@pytest.mark.parametrize("kwargs", [{}, {"weight_decay": 0.1, "nesterov": True}], ids=str)
def test_a_step_in_fake_mode_makes_torchs_state(name, kwargs):
    assert faked(FusedDecaySGD, backend=name, **kwargs) == faked(sgd, **kwargs)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_runs_in_fake_mode(name, schedule):
    optimizer = FusedDecaySGD(groups_of([0.1], momentum=0.9), schedule=SCHEDULES[schedule]())
    for _ in range(3):
        optimizer.step()
    _, lrs = faked(FusedDecaySGD, backend=name, schedule=SCHEDULES[schedule]())
    assert lrs == rates(optimizer)


def test_clipping_in_fake_mode_is_refused(name):
    with pytest.raises(TypeError, match="is a FakeTensor, which has no norm; leave max_grad_norm"):
        faked(FusedDecaySGD, backend=name, max_grad_norm=1.0)


# -- where torch's own step raises an error ---------------------------------------------------


def functorch_grad(function):
    torch.func.grad(lambda x: (function(), x.sum())[1])(torch.ones(3))


def functorch_vmap(function):
    torch.func.vmap(lambda x: (function(), x)[1])(torch.ones(2, 3))


def fake(function):
    with FakeTensorMode():
        function()


def error_of(run, action):
    """Return the class of the error that a call raises, or None."""
    try:
        run(action)
    except Exception as error:
        return type(error)
    return None


# In FakeTensorMode torch's error comes after the parameter was updated, and so does lrfused's.
@pytest.mark.parametrize("run", [functorch_grad, functorch_vmap, fake])
@pytest.mark.parametrize("steps", [0, 5], ids=["first", "later"])
@pytest.mark.parametrize("momentum", [0, 0.9])
@pytest.mark.parametrize("action", ["step", "zero_grad", "fill"])
def test_what_torch_refuses_is_refused(name, run, steps, momentum, action):
    seen = []
    for cls, kwargs in ((FusedDecaySGD, {"backend": name}), (sgd, {})):
        p = leaf(numbers(33))
        optimizer = cls([p], lr=0.1, momentum=momentum, **kwargs)
        for _ in range(steps):
            p.grad = numbers(33, seed=1)
            optimizer.step()
        p.grad = numbers(33, seed=1)
        actions = {
            "step": optimizer.step,
            "zero_grad": optimizer.zero_grad,
            "fill": lambda optimizer=optimizer: optimizer.zero_grad(set_to_none=False),
        }
        error = error_of(run, actions[action])
        seen.append((error, p.tolist(), None if p.grad is None else p.grad.tolist()))
    assert seen[0] == seen[1]
