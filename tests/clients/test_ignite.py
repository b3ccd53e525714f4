"""ignite's engine and its handlers, with torch.optim.SGD in the same loop beside it."""

from contextlib import nullcontext

import pytest
import torch
from support.bits import as_integers
from support.frameworks import HYPER, KINDS, PLATEAU, Network, dataset, ours, torchs
from support.twin import assert_same_state, rates
from torch import nn
from torch.utils.data import DataLoader

ignite = pytest.importorskip("ignite", reason="the loop is that of the package pytorch-ignite")

from ignite.contrib.engines.common import setup_common_training_handlers  # noqa: E402
from ignite.engine import Events, create_supervised_trainer  # noqa: E402
from ignite.handlers import (  # noqa: E402
    Checkpoint,
    CosineAnnealingScheduler,
    DiskSaver,
    FastaiLRFinder,
    LRScheduler,
    PiecewiseLinear,
    ReduceLROnPlateauScheduler,
    create_lr_scheduler_with_warmup,
)

# ignite's LRScheduler calls get_lr(), which torch's compositions lack, and counts warm restarts by
# itself if the class is torch's own.
DRIVEN = [case for case in KINDS[:-2] if "WarmRestarts" not in str(case)]


class Run:
    """A supervised trainer, and what was seen at each iteration."""

    def __init__(self, made):
        self.network = Network()
        self.optimizer, self.scheduler = made(self.network.groups())
        self.losses, self.rates = [], []
        self.trainer = create_supervised_trainer(
            self.network.layers, self.optimizer, nn.MSELoss(), output_transform=self._seen
        )
        self.loader = DataLoader(dataset(), batch_size=6)

    def _seen(self, x, y, y_pred, loss):
        self.losses.append(loss.detach())
        return loss.item()

    def on(self, event, handler):
        self.trainer.add_event_handler(event, handler)
        return self

    def steps_its_scheduler(self, event=Events.ITERATION_COMPLETED):
        return self.on(event, lambda engine: self.scheduler.step())

    def run(self, epochs=3):
        self.on(Events.ITERATION_COMPLETED, lambda engine: self.rates.append(rates(self.optimizer)))
        self.trainer.run(self.loader, max_epochs=epochs)
        return self


def assert_same_run(mine, theirs):
    assert len(mine.losses) == len(theirs.losses) > 5
    for pair in zip(mine.losses, theirs.losses, strict=True):
        assert torch.equal(*map(as_integers, pair))
    assert mine.rates == theirs.rates
    assert all(type(rate) is float for shown in mine.rates for rate in shown)
    assert_same_state(mine.optimizer, theirs.optimizer)


def both(case=None, every=None):
    return Run(lambda groups: ours(groups, case, every)), Run(lambda groups: torchs(groups, case))


def test_the_page(printed):
    printed("ignite")


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_a_schedule_inside_the_step(case):
    mine, theirs = both(case, every=1)
    assert_same_run(mine.run(), theirs.steps_its_scheduler().run())
    assert mine.optimizer.scheduler.last_epoch == 18


@pytest.mark.parametrize("event", [Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED], ids=str)
@pytest.mark.parametrize("case", KINDS, ids=str)
def test_a_schedule_that_an_event_steps(case, event):
    mine, theirs = both(case)
    assert_same_run(*(each.steps_its_scheduler(event).run() for each in (mine, theirs)))


def test_the_common_handlers_step_the_handle():
    mine, theirs = both(KINDS[3])
    for each in (mine, theirs):
        setup_common_training_handlers(each.trainer, lr_scheduler=each.scheduler)
        each.run()
    assert_same_run(mine, theirs)


@pytest.mark.parametrize("case", DRIVEN, ids=str)
def test_ignites_lr_scheduler_drives_the_handle(case):
    mine, theirs = both(case)
    for each in (mine, theirs):
        each.on(Events.ITERATION_STARTED, LRScheduler(each.scheduler, save_history=True)).run()
    assert_same_run(mine, theirs)
    histories = [each.trainer.state.param_history for each in (mine, theirs)]
    assert histories[0] == histories[1]


def test_a_warmup_before_the_handle():
    mine, theirs = both(KINDS[2])
    for each in (mine, theirs):
        warm = create_lr_scheduler_with_warmup(each.scheduler, 0.0, warmup_duration=4)
        each.on(Events.ITERATION_STARTED, warm).run()
    assert_same_run(mine, theirs)


WRITING = {
    "cosine": lambda o: CosineAnnealingScheduler(o, "lr", 0.1, 0.001, cycle_size=7),
    "linear": lambda o: PiecewiseLinear(o, "lr", [(0, 0.0), (5, 0.1), (15, 0.01)]),
    "momentum": lambda o: CosineAnnealingScheduler(o, "momentum", 0.95, 0.8, cycle_size=7),
    "one-group": lambda o: PiecewiseLinear(o, "lr", [(0, 0.1), (9, 0.0)], param_group_index=1),
}


@pytest.mark.parametrize("make", WRITING.values(), ids=WRITING)
def test_ignites_own_schedulers_write_the_rates_of_either(make):
    mine, theirs = both()
    for each in (mine, theirs):
        each.on(Events.ITERATION_STARTED, make(each.optimizer)).run()
    assert_same_run(mine, theirs)


def test_ignites_plateau_cuts_the_rates_of_either():
    mine, theirs = both()
    for each in (mine, theirs):
        plateau = ReduceLROnPlateauScheduler(
            each.optimizer, "score", factor=0.5, patience=1, trainer=each.trainer
        )

        def feed(engine, plateau=plateau):
            engine.state.metrics["score"] = 1.0
            plateau(engine)

        each.on(Events.EPOCH_COMPLETED, feed).run(8)
    assert_same_run(mine, theirs)
    assert rates(mine.optimizer)[0] < HYPER["lr"] / 2


def test_an_event_feeds_a_plateau_the_loss():
    mine, theirs = both(PLATEAU)
    for each in (mine, theirs):
        handle = each.scheduler
        each.on(Events.EPOCH_COMPLETED, lambda engine, handle=handle: handle.step(1.0)).run(10)
    assert_same_run(mine, theirs)
    assert rates(mine.optimizer)[0] < HYPER["lr"]


def to_save(run, *, scheduler):
    objects = {"model": run.network, "optimizer": run.optimizer, "trainer": run.trainer}
    return {**objects, "scheduler": scheduler} if scheduler is not None else objects


def resume(folder, make):
    """Save a run after two epochs of four; return another that has loaded it."""
    first, scheduler = make()
    saved = to_save(first, scheduler=scheduler)
    saver = DiskSaver(folder, create_dir=True, require_empty=False)
    first.on(Events.EPOCH_COMPLETED(once=2), Checkpoint(saved, saver)).run(2)
    again, scheduler = make()
    path = next(folder.glob("*.pt"))
    Checkpoint.load_objects(to_save(again, scheduler=scheduler), path)
    again.run(4)
    again.losses, again.rates = first.losses + again.losses, first.rates + again.rates
    return again


@pytest.mark.parametrize("case", [*KINDS[3:5], KINDS[11]], ids=str)
def test_a_run_is_resumed_from_ignites_checkpoint(case, tmp_path):
    def make():
        return both(case, every=1)[0], None

    whole = both(case)[1].steps_its_scheduler().run(4)
    assert_same_run(resume(tmp_path, make), whole)


@pytest.mark.parametrize("case", KINDS[2:4], ids=str)
def test_a_run_with_ignites_lr_scheduler_is_resumed(case, tmp_path):
    def make(which):
        run = both(case)[which]
        scheduler = LRScheduler(run.scheduler)
        return run.on(Events.ITERATION_STARTED, scheduler), scheduler

    whole, _ = make(1)
    assert_same_run(resume(tmp_path, lambda: make(0)), whole.run(4))


@pytest.mark.parametrize("every", [1, None])
def test_a_range_test_leaves_the_schedule_where_it_was(every):
    mine, theirs = both(KINDS[3], every)
    finder = FastaiLRFinder()
    objects = {"model": mine.network, "optimizer": mine.optimizer}
    both_act = pytest.warns(UserWarning, match="both act") if every else nullcontext()
    with both_act, finder.attach(mine.trainer, objects, num_iter=12, end_lr=0.5) as trainer:
        trainer.run(mine.loader)
    assert len(finder.get_results()["lr"]) > 5
    mine.losses.clear()
    if every is None:
        mine.steps_its_scheduler()
    assert_same_run(mine.run(), theirs.steps_its_scheduler().run())
