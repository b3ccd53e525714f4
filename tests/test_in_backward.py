"""Updates in the backward pass: the same bits as step(), one schedule, and no gradient kept."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from support.distributed import Loops, assert_same_run, backward, network, on_ranks, parameters
from support.twin import assert_same_state, assert_unchanged, numbers, rates, sgd, snapshot
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler

from lrfused import CosineAnnealingLR, FusedDecaySGD, OneCycleLR, StepLR, update_in_backward

pytestmark = pytest.mark.backends(
    "host", reason="the hooks call the same step, and test_update.py compares its bits"
)


class Tied(nn.Module):
    """A network that uses one weight twice and another not at every step."""

    def __init__(self):
        super().__init__()
        self.inner, self.late = nn.Linear(6, 6), nn.Linear(6, 6)
        with torch.no_grad():
            for seed, p in enumerate(self.parameters()):
                p.copy_(numbers(*p.shape, seed=seed))

    def forward(self, x, late):
        x = self.inner(torch.tanh(self.inner(x)))
        return self.late(x) if late else x


def groups(model):
    return [
        {"params": list(model.inner.parameters()), "lr": 0.1},
        {"params": list(model.late.parameters()), "lr": 0.03, "weight_decay": 0.1},
    ]


def pair(schedule=None, **kwargs):
    models = Tied(), Tied()
    hyper = {"lr": 0.5, "momentum": 0.9, "dampening": 0.3}
    ours = FusedDecaySGD(groups(models[0]), schedule=schedule, **hyper, **kwargs)
    return models, ours, sgd(groups(models[1]), **hyper)


def backward_of(models, step):
    for model in models:
        model(numbers(4, 6, seed=step), late=step % 3 != 0).square().mean().backward()


def test_the_bits_are_those_of_torchs_loop(backend):
    models, ours, theirs = pair(OneCycleLR([0.3, 0.2], total_steps=12), backend=backend)
    scheduler = lr_scheduler.OneCycleLR(theirs, [0.3, 0.2], total_steps=12)
    update_in_backward(ours)
    get_optimizer_state_dict(models[0], ours)  # the buffers it makes are not those of a first step
    for step in range(10):
        backward_of(models, step)
        assert all(p.grad is None for p in models[0].parameters())
        if step == 6:
            for optimizer in (ours, theirs):
                optimizer.param_groups[1]["weight_decay"] = 0.2
        theirs.step()
        ours.step()
        scheduler.step()
        theirs.zero_grad()
        assert_same_state(ours, theirs, f"step {step}")
        assert [g["momentum"] for g in ours.param_groups] == [
            g["momentum"] for g in theirs.param_groups
        ]
        assert ours.scheduler.last_epoch == step + 1


def test_a_rate_written_before_the_backward_pass_is_used_in_it(backend):
    models, ours, theirs = pair(StepLR(3, gamma=0.5), backend=backend)
    scheduler = lr_scheduler.StepLR(theirs, 3, gamma=0.5)
    update_in_backward(ours)
    for step in range(6):
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] *= 0.9
        backward_of(models, step)
        for optimizer in (ours, theirs, scheduler):
            optimizer.step()
        theirs.zero_grad()
        assert_same_state(ours, theirs, f"step {step}")


def test_at_most_one_gradient_is_there_at_a_time():
    model = network()
    ours = FusedDecaySGD(model.parameters(), lr=0.1)
    seen = []
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(
            lambda _: seen.append(sum(p.grad is not None for p in model.parameters()))
        )
    update_in_backward(ours)
    model(numbers(4, 6)).sum().backward()
    assert seen == [1] * 6


def test_the_schedule_ticks_with_step_alone():
    models, ours, _ = pair(StepLR(1, gamma=0.5), schedule_every=2)
    update_in_backward(ours)
    for step, rate in enumerate([0.1, 0.05, 0.05, 0.025]):
        backward_of(models[:1], step)
        ours.step()
        assert rates(ours)[0] == rate


def test_removed_it_leaves_gradients_to_step():
    models, ours, theirs = pair()
    handle = update_in_backward(ours)
    for step in range(4):
        if step == 2:
            handle.remove()
        backward_of(models, step)
        assert (models[0].inner.weight.grad is None) == (step < 2)
        for optimizer in (ours, theirs):
            optimizer.step()
            optimizer.zero_grad()
        assert_same_state(ours, theirs, f"step {step}")


def test_parameters_that_come_and_go():
    models, ours, theirs = pair()
    update_in_backward(ours)
    for model, optimizer in zip(models, (ours, theirs), strict=True):
        del optimizer.param_groups[0]["params"][0]
        moved = optimizer.param_groups[1]["params"].pop()
        optimizer.param_groups[0]["params"].append(moved)
        model.extra = nn.Parameter(numbers(6))
        optimizer.add_param_group({"params": [model.extra]})
    before = models[0].inner.weight.detach().clone()
    for step in (1, 2):
        for model in models:
            loss = model(numbers(4, 6, seed=step), late=True) * model.extra
            loss.square().mean().backward()
        assert models[0].extra.grad is not None  # it came later, and step() updates it
        for optimizer in (ours, theirs):
            optimizer.step()
            optimizer.zero_grad()
        assert_same_state(ours, theirs, f"step {step}")
    assert torch.equal(models[0].inner.weight, before)
    assert models[0].inner.weight.grad is not None


def test_a_checkpoint_resumes():
    models, ours, theirs = pair(StepLR(2, gamma=0.5))
    scheduler = lr_scheduler.StepLR(theirs, 2, gamma=0.5)
    handle = update_in_backward(ours)
    for step in range(6):
        if step == 3:
            saved = ours.state_dict()
            ours = FusedDecaySGD(groups(models[0]), lr=0.5, schedule=StepLR(2, gamma=0.5))
            ours.load_state_dict(saved)
            handle.remove()
            update_in_backward(ours)
        backward_of(models, step)
        for optimizer in (ours, theirs, scheduler):
            optimizer.step()
        theirs.zero_grad()
        assert_same_state(ours, theirs, f"step {step}")


def fully_sharded():
    loops = Loops(
        lambda: network(shard=True),
        CosineAnnealingLR(10),
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 10),
    )
    update_in_backward(loops.opt)
    for step in range(3):
        for model in loops.models:
            backward(model, step)
        assert all(p.grad is None for p in parameters(loops.opt))
        for optimizer in (loops.opt, loops.oracle, loops.scheduler):
            optimizer.step()
        loops.oracle.zero_grad()
        assert_same_run(loops.opt, loops.oracle, f"step {step}")


def test_fully_sharded():
    on_ranks(2, fully_sharded)


def data_parallel():
    model = DistributedDataParallel(network())
    ours = FusedDecaySGD(model.parameters(), lr=0.1, momentum=0.9)
    update_in_backward(ours)
    before = snapshot(ours)
    with pytest.raises(RuntimeError, match="not averaged over the ranks yet"):
        backward(model, 0)
    assert_unchanged(ours, before)


def test_gradients_that_are_not_averaged_yet_are_refused():
    on_ranks(2, data_parallel)


@pytest.mark.parametrize("extra", [{"amp": "fused"}, {"max_grad_norm": 1.0}], ids=str)
def test_what_looks_at_all_gradients_first_is_refused(extra):
    _, ours, _ = pair(**extra)
    with pytest.raises(ValueError, match=f"cannot take {next(iter(extra))}="):
        update_in_backward(ours)


def test_the_benchmark_compares_bits_and_writes_peaks(tmp_path, monkeypatch):
    script = Path(__file__).resolve().parent.parent / "benchmarks" / "update_in_backward.py"
    spec = importlib.util.spec_from_file_location(script.stem, script)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    # In this process, where the peak means nothing.
    monkeypatch.setattr(benchmark, "measure", lambda way, o: benchmark.train(way, 2, 64, o.steps))
    out = tmp_path / "out.json"
    monkeypatch.setattr("sys.argv", [script.name, "--out", str(out), "--repeats", "1"])
    with torch.random.fork_rng():
        assert benchmark.main() == 0
    written = json.loads(out.read_text())
    assert set(written["peak_mib"]) == {"torch", "step", "in backward"}
    monkeypatch.setattr(benchmark, "measure", lambda way, _: {"bits": way, "peak_mib": 1.0})
    out.unlink()
    assert benchmark.main() == 1
    assert not out.exists()
