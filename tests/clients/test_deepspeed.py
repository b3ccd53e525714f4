"""DeepSpeed's ZeRO 0 to 2 around FusedDecaySGD, and around torch.optim.SGD beside it."""

import logging
import os
import tempfile
import warnings
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch.distributed as dist
from support import distributed
from support.clients import Steps, assert_same_steps
from support.frameworks import HYPER, Network
from support.twin import numbers, sgd
from torch.optim import lr_scheduler

from lrfused import CosineAnnealingLR, FusedDecaySGD

if find_spec("deepspeed") is None:
    pytest.skip("the client deepspeed is not installed", allow_module_level=True)

STEPS = 5
ON_CPU = {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": "0"}
WARMUP = {"type": "WarmupLR", "params": {"warmup_num_steps": 10, "warmup_max_lr": 0.05}}


def torchs(params):
    return sgd(params, **HYPER)


def plain(params):
    return FusedDecaySGD(params, **HYPER)


def built_in(params):
    return FusedDecaySGD(params, schedule=CosineAnnealingLR(10), **HYPER)


def by_the_engine(params):
    schedule = CosineAnnealingLR(10)
    return FusedDecaySGD(params, schedule=schedule, schedule_every=None, **HYPER)


def attached(optimizer):
    return lr_scheduler.CosineAnnealingLR(optimizer, 10)


def handle(optimizer):
    return optimizer.scheduler


def none(_):
    return None


BF16 = {"bf16": {"enabled": True}, "gradient_clipping": 0.5}
LOOPS = {
    "built-in": ((built_in, none), (torchs, attached), {}),
    "handle": ((by_the_engine, handle), (torchs, attached), {}),
    "deepspeeds": ((plain, none), (torchs, none), {"scheduler": WARMUP}),
    "accumulated": ((built_in, none), (torchs, attached), {"gradient_accumulation_steps": 2}),
    "bf16-built-in": ((built_in, none), (torchs, attached), BF16),
    "bf16-handle": ((by_the_engine, handle), (torchs, attached), BF16),
}


def engine_of(stage, make, scheduler, options, *, groups):
    """Hand a network and its optimizer to DeepSpeed."""
    import deepspeed

    network = Network()
    optimizer = make(network.groups() if groups else network.parameters())
    accumulated = options.get("gradient_accumulation_steps", 1)
    return deepspeed.initialize(
        model=network,
        optimizer=optimizer,
        lr_scheduler=scheduler(optimizer),
        config={
            "train_batch_size": 4 * accumulated * dist.get_world_size(),
            "zero_optimization": {"stage": stage},
            "zero_allow_untested_optimizer": True,
            **options,
        },
    )[0]


def train(engine, start, count, accumulated=1):
    """Make optimizer steps; keep what each leaves on this rank, and the model's weights."""
    steps = Steps()
    dtype = next(engine.module.parameters()).dtype
    for number in range(start, start + count):
        for part in range(accumulated):
            seed = 100 * number + 10 * part + dist.get_rank()
            inputs = numbers(4, 8, seed=seed).clamp(-1, 1).to(dtype)
            engine.backward(engine(inputs, inputs.sum(1, keepdim=True).sin())["loss"])
            engine.step()
        steps.add(engine.basic_optimizer)
        steps[-1]["params"] += [p.detach().clone() for p in engine.module.parameters()]
    return steps


def prepare():
    """Let DeepSpeed use gloo alone: it would compile collectives of its own for minutes."""
    os.environ.update(ON_CPU)
    warnings.simplefilter("ignore")
    # By import_module, as the attribute `torch` of deepspeed.comm is another module.
    import_module("deepspeed.comm.torch").build_shm_op = lambda: None
    import_module("deepspeed.utils").logger.setLevel(logging.ERROR)


def compare_all(groups):
    """Compare every loop at every stage, as it takes seconds to import DeepSpeed."""
    prepare()
    for stage in (0, 1, 2):
        for name in LOOPS:
            if (stage, name) == (0, "bf16-built-in"):
                continue  # its first step is the one that DeepSpeed makes
            try:
                compare(stage, *LOOPS[name], groups=groups)
            except AssertionError as error:
                raise AssertionError(f"ZeRO {stage}, {name}: {error}") from error


def compare(stage, mine, other, options, *, groups):
    """Train beside torch's; then train the end of the run again from a checkpoint of either."""
    accumulated = options.get("gradient_accumulation_steps", 1)
    folders = [tempfile.mkdtemp(), tempfile.mkdtemp()] if dist.get_rank() == 0 else [None, None]
    dist.broadcast_object_list(folders)
    runs = []
    for loop, folder in zip((mine, other), folders, strict=True):
        engine = engine_of(stage, *loop, options, groups=groups)
        runs.append(train(engine, 0, 2, accumulated))
        engine.save_checkpoint(folder)
        runs[-1] += train(engine, 2, STEPS - 2, accumulated)
    assert_same_steps(*runs)
    for folder in folders if other[1] is none else folders[:1]:  # or it has torch's scheduler, too
        resumed = engine_of(stage, *mine, options, groups=groups)
        assert resumed.load_checkpoint(folder)[0] is not None
        assert_same_steps(train(resumed, 2, STEPS - 2, accumulated), Steps(runs[1][2:]))


@pytest.mark.parametrize("groups", [False, True], ids=["one-group", "two-groups"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_training_has_torchs_bits_and_is_resumed(count, groups):
    distributed.on_ranks(count, compare_all, groups)


def step_of_deepspeed():
    """Count the steps that DeepSpeed makes before the first batch."""
    prepare()
    for stage, steps in ((0, 1), (1, 0), (2, 0)):
        engine = engine_of(stage, built_in, none, BF16, groups=False)
        assert engine.basic_optimizer.scheduler.last_epoch == steps


def test_without_zero_bf16_begins_with_a_step_of_deepspeeds():
    distributed.on_ranks(1, step_of_deepspeed)


def test_the_page(printed, monkeypatch):
    for name, value in ON_CPU.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        prepare()
        printed("deepspeed")
