"""Long and unlucky runs: kills, damaged files, junk, threads, forks, ten million steps."""

import io
import itertools
import math
import multiprocessing
import os
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from support.bits import assert_same_bits, assert_same_rates
from support.inside import advance_of
from support.twin import assert_same_state, assert_unchanged, leaf, numbers, rates, snapshot

import lrfused
from lrfused import FusedDecaySGD

pytestmark = pytest.mark.backends("host", reason="runs this long take hours in emulated kernels")

TESTS = Path(__file__).resolve().parent
STEPS = 10_000_000


def script(*arguments, folder=TESTS):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def trained(seed, steps=30, schedule=None, backend="auto"):
    """Train two groups on gradients of their own; give the optimizer."""
    groups = [
        {"params": [leaf(numbers(33, seed=seed)), leaf(numbers(1025, seed=seed + 1))]},
        {"params": [leaf(numbers(70_001, seed=seed + 2))], "lr": 0.3},
    ]
    schedule = schedule or [lrfused.CosineAnnealingLR(20), lrfused.ReduceLROnPlateau(patience=1)]
    optimizer = FusedDecaySGD(groups, lr=0.1, momentum=0.9, schedule=schedule, backend=backend)
    go_on(optimizer, range(steps))
    return optimizer


def go_on(optimizer, steps):
    for step in steps:
        for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"]):
            p.grad = numbers(*p.shape, seed=100 * step + i)
        optimizer.step()
        if step % 3 == 0:
            optimizer.scheduler.step(1.0 + step % 5)


def test_a_run_killed_fifty_times_while_it_saves_resumes_to_the_bit(tmp_path):
    told = script("-m", "support.kills", tmp_path / "run", 50, 1_000_000, 1)
    found = re.fullmatch(r"50 kills, (\d+) half-written files, (\d+) steps\n", told)
    assert found, told
    assert int(found[1]) > 0  # some kills met a file that was being written
    assert int(found[2]) > 5  # and the run got on


def damaged(data):
    """Cut a file at many places, and change some of its bytes."""
    drawn = random.Random(1)
    for length in itertools.chain(range(0, 64, 7), drawn.sample(range(len(data)), 40)):
        yield data[:length]
    for _ in range(150):
        bytes_ = bytearray(data)
        for _ in range(drawn.choice([1, 1, 8])):
            bytes_[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
        yield bytes(bytes_)
    yield b"\x80\x04]\x94."  # a pickle of something else
    yield b"PK\x05\x06" + bytes(18)  # an empty archive


def test_damaged_files_are_refused_by_someone_and_nothing_changes(backend):
    file = io.BytesIO()
    torch.save(trained(0, backend=backend).state_dict(), file)
    receiver = trained(1, steps=3, backend=backend)
    before, refused, cut = snapshot(receiver), 0, 0
    for data in damaged(file.getvalue()):
        cut += 1
        try:
            state = torch.load(io.BytesIO(data), weights_only=True)
        except Exception:  # torch's own verdict, in torch's own words
            refused += 1
            continue
        try:
            receiver.load_state_dict(state)
        except (TypeError, ValueError, KeyError, RuntimeError):
            refused += 1
            assert_unchanged(receiver, before)
        else:  # a changed number is a number: nobody can see it
            receiver = trained(1, steps=3, backend=backend)
    assert refused >= 50, f"{refused} of {cut}"


FOREIGN = {
    "a model's": lambda: torch.nn.Linear(3, 2).state_dict(),
    "Adam's": lambda: stepped(torch.optim.Adam).state_dict(),
    "a scheduler's": lambda: trained(0).scheduler.state_dict(),
    "another shape's": lambda: trained(0).state_dict() | {"state": {0: {"momentum_buffer": 1.0}}},
    "no dict": lambda: [1, 2, 3],
    "None": lambda: None,
    "a state that is a number": lambda: trained(0).state_dict() | {"state": 0},
    "groups that are a dict": lambda: trained(0).state_dict() | {"param_groups": {}},
    "groups that are words": lambda: trained(0).state_dict() | {"param_groups": ["a", "b"]},
}


def stepped(kind):
    p = leaf(numbers(33))
    p.grad = numbers(33)
    optimizer = kind([p], lr=0.1)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_checkpoint_is_one_clear_error_and_nothing_changes(backend, make):
    receiver = trained(1, steps=3, backend=backend)
    before = snapshot(receiver)
    with pytest.raises((ValueError, TypeError)) as refusal:
        receiver.load_state_dict(make())
    assert len(str(refusal.value)) > 20
    assert_unchanged(receiver, before)


@pytest.mark.parametrize("kind", ["constructors", "optimizer", "checkpoints", "handles"])
def test_no_junk_crashes_the_process(kind):
    assert int(script("-W", "ignore", "-m", "support.junk", kind)) >= CASES[kind]


CASES = {"constructors": 5_000, "optimizer": 1_900, "checkpoints": 2_400, "handles": 1_200}


def test_ten_thousand_cases_are_thrown():
    assert sum(CASES.values()) >= 10_000


def test_optimizers_in_several_threads_have_the_bits_of_one(backend):
    want = [trained(10 * i, backend=backend) for i in range(4)]
    got, errors = [None] * 4, []

    def run(i):
        try:
            got[i] = trained(10 * i, backend=backend)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for ours, theirs in zip(got, want, strict=True):
        assert_same_state(ours, theirs)


def in_a_child(optimizer, sender):
    go_on(optimizer, range(30, 40))
    params = [p.detach() for group in optimizer.param_groups for p in group["params"]]
    sender.send(([p.tolist() for p in params], rates(optimizer)))


@pytest.mark.skipif(sys.platform == "win32", reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_parent_and_child_go_on_after_a_fork_each_to_the_bit(backend):
    if backend == "triton":
        pytest.skip("a device does not survive a fork")
    optimizer = trained(0, backend=backend)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=in_a_child, args=(optimizer, sender))
    child.start()
    assert receiver.poll(60), "the child hangs"
    params, child_rates = receiver.recv()
    child.join()
    assert child.exitcode == 0
    go_on(optimizer, range(30, 40))
    whole = trained(0, steps=40, backend=backend)
    assert_same_state(optimizer, whole, "the parent")
    assert_same_rates(child_rates, rates(whole), "the child")
    mine = [p for group in whole.param_groups for p in group["params"]]
    for got, want in zip(params, mine, strict=True):
        assert_same_bits(torch.tensor(got, dtype=want.dtype), want.detach(), "the child's")


FORKED = """
import os, signal, sys, torch
from lrfused import FusedDecaySGD
torch.set_num_threads(2)
dtype, size = getattr(torch, sys.argv[1]), int(sys.argv[2])
def train():
    params = [torch.nn.Parameter(torch.ones(size, dtype=dtype)) for _ in range(10)]
    optimizer = FusedDecaySGD(params, lr=0.1, momentum=0.9)
    for _ in range(40):
        for p in params:
            p.grad = torch.full_like(p, 0.1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
torch.ones(1 << 22).mul_(2)  # torch has its threads
loaded = sys.argv[3] == "before"
if loaded:
    train()
assert ("lrfused._C" in sys.modules) == loaded
child = os.fork()
signal.alarm(60)  # ends a process that waits for ever
train()
if child:
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork here")
@pytest.mark.parametrize("loaded", ["before", "later"])
@pytest.mark.parametrize(("dtype", "size"), [("float32", 10_000), ("float64", 20_000)])
def test_a_forked_process_does_not_wait_for_threads_that_it_has_not(loaded, dtype, size):
    """Of these sizes a tensor is updated by torch's own step without threads."""
    run = [sys.executable, "-W", "ignore", "-c", FORKED, dtype, str(size), loaded]
    assert subprocess.run(run, timeout=120).returncode == 0


# torch's schedulers make some 100,000 steps a second. For ten million, their `get_lr` is written
# out here, and held against them for the first of them.
def exponential(lr, epoch):
    return lr * 0.9999999


def cosine(lr, epoch, period=5_000, floor=1e-3, base=0.1):
    if (epoch - 1 - period) % (2 * period) == 0:
        return lr + (base - floor) * (1 - math.cos(math.pi / period)) / 2
    return (1 + math.cos(math.pi * epoch / period)) / (
        1 + math.cos(math.pi * (epoch - 1) / period)
    ) * (lr - floor) + floor


RECURSIONS = {
    "ExponentialLR": ({"gamma": 0.9999999}, exponential),
    "CosineAnnealingLR": ({"T_max": 5_000, "eta_min": 1e-3}, cosine),
}
CHECKED = 20_000  # steps that torch itself makes


@pytest.mark.parametrize("name", RECURSIONS)
def test_ten_million_steps_end_at_torchs_rate_to_the_bit(name):
    arguments, recursion = RECURSIONS[name]
    torchs = torch.optim.SGD([leaf(numbers(1))], lr=0.1)
    scheduler = getattr(torch.optim.lr_scheduler, name)(torchs, **arguments)
    optimizer = FusedDecaySGD(
        [leaf(numbers(1))],
        lr=0.1,
        schedule=getattr(lrfused, name)(**arguments),
        schedule_every=None,
    )
    torchs.step()
    optimizer.step()
    lr = 0.1
    for epoch in range(1, CHECKED + 1):
        lr = recursion(lr, epoch)
        scheduler.step()
        optimizer.scheduler.step()
        assert rates(torchs) == rates(optimizer) == [lr], epoch

    # The call that scheduler.step() makes.
    advance = advance_of(optimizer)
    for epoch in range(CHECKED + 1, STEPS + 1):
        lr = recursion(lr, epoch)
        advance(optimizer.param_groups)
    assert optimizer.scheduler.last_epoch == STEPS
    assert_same_rates(rates(optimizer), [lr], f"{name} after {STEPS:,} steps")
