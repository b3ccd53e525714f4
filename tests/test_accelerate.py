"""Hugging Face accelerate, with torch.optim.SGD in the same loop beside it."""

import pytest
import torch
from cases import Schedule
from support.bits import assert_same_bits
from support.frameworks import HYPER, KINDS, PLATEAU, Network, dataset, ours, torchs
from support.twin import assert_same_state, rates
from torch.utils.data import DataLoader

accelerate = pytest.importorskip("accelerate", reason="the loop is that of the package accelerate")

from accelerate.optimizer import AcceleratedOptimizer  # noqa: E402
from accelerate.scheduler import AcceleratedScheduler  # noqa: E402
from accelerate.state import AcceleratorState, GradientState, PartialState  # noqa: E402


class Run:
    """A loop as accelerate's documentation has it."""

    def __init__(self, make, case, every=None, **config):
        for state in (AcceleratorState, GradientState, PartialState):
            state._shared_state.clear()  # each run is one of its own
        self.accelerator = accelerate.Accelerator(cpu=True, **config)
        network = Network()
        optimizer, scheduler = make(network.groups(), case, *([every] if every else []))
        loader = DataLoader(dataset(), batch_size=6)
        prepared = self.accelerator.prepare(network, optimizer, loader, scheduler)
        self.model, self.optimizer, self.loader, self.scheduler = prepared
        self.steps_schedule = not every
        self.losses, self.shown = [], []

    def epoch(self):
        for batch in self.loader:
            with self.accelerator.accumulate(self.model):
                loss = self.model(*batch)["loss"]
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), 0.5)
                self.optimizer.step()
                if self.steps_schedule:
                    self.scheduler.step()
                self.optimizer.zero_grad()
            self.losses.append(loss.detach())
            self.shown.append(rates(self.optimizer))
        return self

    def check(self, theirs):
        assert_same_bits(torch.stack(self.losses), torch.stack(theirs.losses), "losses")
        assert self.shown == theirs.shown
        assert_same_state(self.optimizer.optimizer, theirs.optimizer.optimizer)


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_schedulers_that_are_prepared(case):
    mine, theirs = (Run(make, case).epoch().epoch() for make in (ours, torchs))
    mine.check(theirs)
    assert mine.scheduler.get_last_lr() == theirs.scheduler.get_last_lr()


SHORT = Schedule("OneCycleLR-short", "OneCycleLR", {"max_lr": 0.3, "total_steps": 15})


@pytest.mark.parametrize("adjust", [False, True])
@pytest.mark.parametrize("case", [KINDS[3], SHORT], ids=str)
def test_gradient_accumulation(case, adjust):
    runs = []
    for make in (ours, torchs):
        run = Run(make, case, gradient_accumulation_steps=4)
        run.accelerator.gradient_state.plugin_kwargs["adjust_scheduler"] = adjust
        runs.append(run.epoch().epoch().epoch())
    runs[0].check(runs[1])
    mine, theirs = (run.scheduler.scheduler for run in runs)
    assert mine.last_epoch == theirs.last_epoch
    assert mine._step_count == theirs._step_count
    if case is SHORT:  # with those left out counted too it comes to its end
        assert mine.last_epoch == (4 if adjust else 6)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_schedule_inside_the_step(accumulate):
    config = {"gradient_accumulation_steps": accumulate}
    mine, theirs = Run(ours, KINDS[3], every=1, **config), Run(torchs, KINDS[3], **config)
    mine.epoch().epoch().check(theirs.epoch().epoch())


def test_bf16():
    mine, theirs = (Run(make, KINDS[3], mixed_precision="bf16").epoch() for make in (ours, torchs))
    mine.check(theirs)


def test_a_plateau_is_fed():
    runs = [Run(make, PLATEAU) for make in (ours, torchs)]
    for run in runs:
        run.steps_schedule = False
        for metric in (1.0, 2.0, 3.0):
            run.epoch()
            run.scheduler.step(torch.tensor(metric))
    runs[0].check(runs[1])
    assert rates(runs[0].optimizer)[0] < HYPER["lr"]


@pytest.mark.parametrize("makes", [(ours, ours), (torchs, ours)], ids=["here", "from-torch"])
@pytest.mark.parametrize("case", [*KINDS[3:5], *KINDS[11:]], ids=str)
def test_a_saved_state_is_resumed(tmp_path, case, makes):
    whole = Run(torchs, case).epoch().epoch()
    first = Run(makes[0], case).epoch()
    first.accelerator.save_state(tmp_path)
    again = Run(makes[1], case)
    again.accelerator.load_state(tmp_path)
    again.epoch()
    again.losses, again.shown = first.losses + again.losses, first.shown + again.shown
    again.check(whole)


@pytest.mark.parametrize("every", [None, 1])
def test_a_step_that_overflows_is_left_out_with_its_schedule_step(every):
    """Put on by hand the two wrappers: accelerate itself refuses fp16 on a CPU."""
    runs = []
    for make in (ours, torchs):
        run = Run(make, KINDS[3], *([every] if make is ours else []))
        inner, scheduler = run.optimizer.optimizer, run.scheduler.scheduler
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        run.optimizer = AcceleratedOptimizer(inner, scaler=scaler)
        run.scheduler = AcceleratedScheduler(scheduler, run.optimizer)
        for number, batch in enumerate(DataLoader(dataset(), batch_size=6)):
            run.optimizer.zero_grad()
            loss = run.model(*batch)["loss"]
            scaler.scale(loss * float("inf") if number in (1, 4) else loss).backward()
            run.optimizer.step()
            assert run.optimizer.step_was_skipped == (number in (1, 4))
            if run.steps_schedule:
                run.scheduler.step()
        runs.append((inner, scheduler))
    assert_same_state(runs[0][0], runs[1][0])
    assert runs[0][1].last_epoch == runs[1][1].last_epoch == 4


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_a_scheduler_on_the_prepared_optimizer_and_ours_both_act(case):
    """It wraps the wrapper's step, not ours."""
    mine, theirs = Run(ours, KINDS[2], every=1), Run(torchs, KINDS[2])
    beside = theirs.scheduler
    for run in (mine, theirs):
        run.scheduler, run.steps_schedule = case.torchs(run.optimizer), True
    step = theirs.scheduler.step
    theirs.scheduler.step = lambda: (beside.step(), step())
    mine.epoch().epoch().check(theirs.epoch().epoch())
    assert mine.optimizer.optimizer.scheduler.last_epoch == 12


def test_every_process_counts(monkeypatch):
    """The schedule is stepped once for each process, as if there were so many."""
    runs = [Run(make, KINDS[3]) for make in (ours, torchs)]
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 3)
    for run in runs:
        run.epoch()
    runs[0].check(runs[1])
    assert runs[0].scheduler.scheduler.last_epoch == 18


def test_parameters_that_are_switched_between_steps():
    runs = [Run(make, KINDS[3]).epoch() for make in (ours, torchs)]
    for run in runs:  # as is done for FSDP2
        switched = {p: torch.nn.Parameter(p.detach() * 0.5) for p in run.model.parameters()}
        run.optimizer._switch_parameters(switched)
        for module in run.model.modules():
            for name, param in list(module._parameters.items()):
                module._parameters[name] = switched[param]
        run.epoch()
    runs[0].check(runs[1])
