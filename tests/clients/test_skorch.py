"""skorch's NeuralNet, with torch.optim.SGD in the same loop beside it."""

import copy
import pickle

import pytest
import torch
from support.frameworks import HYPER, KINDS, PLATEAU, Network, dataset
from support.twin import assert_same_state, rates
from torch import nn

from lrfused import CosineAnnealingLR, FusedDecaySGD, StepLR

skorch = pytest.importorskip("skorch", reason="the loop is that of the package skorch")

from sklearn.model_selection import GridSearchCV  # noqa: E402
from skorch.callbacks import LRScheduler  # noqa: E402

X, Y = dataset().tensors


def handle(optimizer, **_):
    return optimizer.scheduler


def net(optimizer, callbacks=(), **settings):
    """Make a net with the biases in a group of their own; six batches an epoch."""
    hyper = {f"optimizer__{name}": value for name, value in HYPER.items()}
    return skorch.NeuralNet(
        Network().layers,
        criterion=nn.MSELoss,
        optimizer=optimizer,
        optimizer__param_groups=[("*.bias", {"weight_decay": 0.0, "lr": 0.02})],
        batch_size=6,
        max_epochs=3,
        train_split=None,
        verbose=0,
        callbacks=list(callbacks),
        **{**hyper, **settings},
    )


def torchs(case=None, step_every="batch"):
    def policy(optimizer, **_):
        return case.torchs(optimizer)

    callbacks = [] if case is None else [LRScheduler(policy, step_every=step_every)]
    return net(torch.optim.SGD, callbacks, optimizer__foreach=False)


def stepped(case, step_every="batch"):
    """Make a net whose callback steps the handle."""
    every = {"optimizer__schedule": case.ours(), "optimizer__schedule_every": None}
    return net(FusedDecaySGD, [LRScheduler(handle, step_every=step_every)], **every)


def assert_same_fit(mine, theirs):
    assert mine.history[:, "train_loss"] == theirs.history[:, "train_loss"]
    assert_same_state(mine.optimizer_, theirs.optimizer_)


def test_the_page(printed):
    printed("skorch")


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_a_schedule_inside_the_step(case):
    mine = net(FusedDecaySGD, optimizer__schedule=case.ours()).fit(X, Y)
    assert_same_fit(mine, torchs(case).fit(X, Y))
    assert mine.optimizer_.scheduler.last_epoch == 18


@pytest.mark.parametrize("step_every", ["batch", "epoch"])
@pytest.mark.parametrize("case", KINDS[:4], ids=str)
def test_a_schedule_that_the_callback_steps(case, step_every):
    mine, theirs = stepped(case, step_every).fit(X, Y), torchs(case, step_every).fit(X, Y)
    assert_same_fit(mine, theirs)
    place = "event_lr" if step_every == "epoch" else ("batches", slice(None), "event_lr")
    place = (slice(None), place) if step_every == "epoch" else (slice(None), *place)
    assert mine.history[place] == theirs.history[place]


def test_the_callback_feeds_a_plateau():
    mine, theirs = stepped(PLATEAU, "epoch"), torchs(PLATEAU, "epoch")
    for each in (mine, theirs):
        each.set_params(max_epochs=12, callbacks__LRScheduler__monitor=lambda net: 1.0)
        each.fit(X, Y)
    assert_same_fit(mine, theirs)
    assert rates(mine.optimizer_)[0] < HYPER["lr"] / 2


@pytest.mark.parametrize("case", [*KINDS[3:5], KINDS[11]], ids=str)
def test_a_run_is_resumed_from_saved_params(case, tmp_path):
    def make():
        return net(FusedDecaySGD, optimizer__schedule=case.ours())

    files = {f"f_{name}": tmp_path / name for name in ("params", "optimizer", "history")}
    make().fit(X, Y).save_params(**files)
    mine = make().initialize()
    mine.load_params(**files)
    mine.partial_fit(X, Y)
    theirs = torchs(case)
    theirs.set_params(max_epochs=6)
    assert_same_fit(mine, theirs.fit(X, Y))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_a_copied_net_goes_on(copied):
    mine = copied(net(FusedDecaySGD, optimizer__schedule=KINDS[3].ours()).fit(X, Y))
    mine.partial_fit(X, Y)
    theirs = torchs(KINDS[3])
    theirs.set_params(max_epochs=6)
    assert_same_fit(mine, theirs.fit(X, Y))


def test_a_search_over_schedules():
    tried = [None, StepLR(6), CosineAnnealingLR(18)]
    search = GridSearchCV(
        net(FusedDecaySGD, optimizer__schedule=None),
        {"optimizer__schedule": tried, "optimizer__lr": [0.05, 0.1]},
        scoring="neg_mean_squared_error",
        cv=2,
    ).fit(X, Y)
    best = net(FusedDecaySGD, **search.best_params_).fit(X, Y)
    assert_same_state(best.optimizer_, search.best_estimator_.optimizer_)


def test_a_rate_written_by_set_params_is_taken():
    mine, theirs = net(FusedDecaySGD, optimizer__schedule=KINDS[2].ours()), torchs(KINDS[2])
    for each in (mine, theirs):
        each.fit(X, Y)
        each.set_params(lr=0.5, optimizer__momentum=0.5)
    assert rates(mine.optimizer_) == rates(theirs.optimizer_) == [0.5, 0.5]
    mine.partial_fit(X, Y)
    want = 0.5
    for _ in range(18):
        want *= 0.9
    assert rates(mine.optimizer_) == [want, want]


def test_a_schedule_written_by_set_params_begins():
    mine = net(FusedDecaySGD, optimizer__schedule=KINDS[2].ours()).fit(X, Y)
    before = rates(mine.optimizer_)
    mine.set_params(optimizer__schedule=StepLR(6, gamma=0.5))
    mine.partial_fit(X, Y)
    assert rates(mine.optimizer_) == [rate * 0.5**3 for rate in before]
    assert mine.optimizer_.scheduler.last_epoch == 18
    assert rates(mine.fit(X, Y).optimizer_) == before
