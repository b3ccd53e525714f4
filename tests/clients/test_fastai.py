"""fastai's Learner, with torch.optim.SGD in the same loop beside it."""

import warnings
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from support import bare_torchvision
from support.bits import as_integers
from support.frameworks import HYPER, KINDS, PLATEAU, Network, dataset
from support.twin import assert_same_state, rates
from torch import nn
from torch.utils.data import TensorDataset

from lrfused import FusedDecaySGD

if bare_torchvision.package() is None:
    pytest.skip("fastai needs the package torchvision", allow_module_level=True)
if find_spec("fastai") is None:
    pytest.skip("the loop is that of the package fastai", allow_module_level=True)

with warnings.catch_warnings():  # of torch.jit, about what fastai imports
    warnings.simplefilter("ignore")
    from fastai.callback.core import Callback
    from fastai.callback.schedule import Learner
    from fastai.callback.tracker import SaveModelCallback
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import load_learner
    from fastai.optimizer import OptimWrapper


# Of fastai's way to load.
pytestmark = pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning")


class Data(TensorDataset):
    """The drawn inputs, as fastai exports them: it takes the data out."""

    def new_empty(self):
        return self


class Seen(Callback):
    """Keep each loss, and the rates of each step."""

    def __init__(self):
        self.losses, self.rates = [], []

    def before_step(self):
        self.losses.append(self.loss.detach().clone())
        self.rates.append(rates(self.opt.opt))


class Steps(Callback):
    """Step a scheduler of torch's, or a handle, after each batch or epoch."""

    run_valid = False

    def __init__(self, scheduler, event="after_batch"):
        self.scheduler, self.event = scheduler, event

    def after_batch(self):
        if self.event == "after_batch":
            self.scheduler.step()

    def after_epoch(self):
        if self.event == "feed":
            self.scheduler.step(1.0)
        elif self.event == "after_epoch":
            self.scheduler.step()


def split(model):
    """Put the biases into a group of their own."""
    parameters = list(model.parameters())
    return [[p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() == 1]]


def learner(folder, optimizer, **settings):
    hyper = {"momentum": HYPER["momentum"], "weight_decay": HYPER["weight_decay"]}
    loader = DataLoader(Data(*dataset().tensors), bs=6)
    learn = Learner(
        DataLoaders(loader, loader),
        Network().layers,
        loss_func=nn.MSELoss(),
        opt_func=partial(OptimWrapper, opt=optimizer, **hyper, **settings),
        lr=HYPER["lr"],
        splitter=split,
        cbs=Seen(),
        path=folder,
    )
    learn.create_opt()
    return learn


def torchs(folder, case=None, event="after_batch"):
    learn = learner(folder, torch.optim.SGD, foreach=False)
    return learn if case is None else learn.add_cb(Steps(case.torchs(learn.opt.opt), event))


def inside(folder, case):
    return learner(folder, FusedDecaySGD, schedule=case.ours())


def stepped(folder, case, event="after_batch"):
    learn = learner(folder, FusedDecaySGD, schedule=case.ours(), schedule_every=None)
    return learn.add_cb(Steps(learn.opt.opt.scheduler, event))


def both(folder):
    return learner(folder, FusedDecaySGD), torchs(folder)


def fit(learn, epochs=3, lr=None):
    """Train on, from the rates that the scheduler has set; `fit` would begin at the learner's."""
    lr = [hyper["lr"] for hyper in learn.opt.hypers] if lr is None else lr
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, lr=lr)
    return learn


def assert_same_fit(mine, theirs, steps=None):
    """Compare the last steps, or all, and the state after them."""
    seen, want = mine.seen, theirs.seen
    steps = steps or len(want.losses)
    assert len(seen.losses) >= steps > 5
    for pair in zip(seen.losses[-steps:], want.losses[-steps:], strict=True):
        assert torch.equal(*map(as_integers, pair))
    assert seen.rates[-steps:] == want.rates[-steps:]
    assert_same_state(mine.opt.opt, theirs.opt.opt)


def test_the_page(printed):
    printed("fastai")


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_a_schedule_inside_the_step(case, tmp_path):
    mine = fit(inside(tmp_path, case))
    assert_same_fit(mine, fit(torchs(tmp_path, case)))
    assert mine.opt.opt.scheduler.last_epoch == 18


@pytest.mark.parametrize("event", ["after_batch", "after_epoch"])
@pytest.mark.parametrize("case", KINDS[:4], ids=str)
def test_a_schedule_that_a_callback_steps(case, event, tmp_path):
    assert_same_fit(fit(stepped(tmp_path, case, event)), fit(torchs(tmp_path, case, event)))


def test_a_callback_feeds_a_plateau(tmp_path):
    mine, theirs = (fit(make(tmp_path, PLATEAU, "feed"), 10) for make in (stepped, torchs))
    assert_same_fit(mine, theirs)
    assert rates(mine.opt.opt)[0] < HYPER["lr"]


POLICIES = {
    "one-cycle": lambda learn: learn.fit_one_cycle(3, 0.1),
    "one-cycle-by-group": lambda learn: learn.fit_one_cycle(3, slice(0.01, 0.1)),
    "flat-cosine": lambda learn: learn.fit_flat_cos(3, 0.1),
    "restarts": lambda learn: learn.fit_sgdr(2, 1, 0.1),
    "fine-tune": lambda learn: learn.fine_tune(2, 0.1),
    "plain": lambda learn: learn.fit(3, lr=0.1, wd=0.01),
    "twice": lambda learn: [learn.fit_one_cycle(1, rate) for rate in (0.1, 0.05)],
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_fastais_schedules_write_the_rates_of_either(policy, tmp_path):
    mine, theirs = both(tmp_path)
    for learn in (mine, theirs):
        with learn.no_bar(), learn.no_logging():
            policy(learn)
    assert_same_fit(mine, theirs)
    momenta = [[g["momentum"] for g in learn.opt.opt.param_groups] for learn in (mine, theirs)]
    assert momenta[0] == momenta[1]


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_a_fit_that_begins_at_the_learners_rate(case, tmp_path):
    mine, theirs = inside(tmp_path, case), torchs(tmp_path, case)
    for learn in (mine, theirs):
        fit(fit(learn, 2, HYPER["lr"]), 2, HYPER["lr"])
    assert_same_fit(mine, theirs)
    assert mine.seen.rates[0] == mine.seen.rates[12] == [HYPER["lr"]] * 2


@pytest.mark.parametrize("case", [*KINDS[3:5], KINDS[11]], ids=str)
def test_a_run_is_resumed_from_a_saved_learner(case, tmp_path):
    fit(inside(tmp_path, case)).save("half")
    mine = fit(inside(tmp_path, case).load("half"))
    assert_same_fit(mine, fit(torchs(tmp_path, case), 6), steps=18)


def test_torchs_optimizer_is_loaded(tmp_path):
    mine, theirs = both(tmp_path)
    fit(theirs).save("half")
    assert_same_fit(fit(mine.load("half")), fit(theirs), steps=18)


def test_torchs_optimizer_loads_ours(tmp_path):
    mine, theirs = both(tmp_path)
    fit(mine).save("half")
    assert_same_fit(fit(mine), fit(theirs.load("half")), steps=18)


def test_an_exported_learner_goes_on(tmp_path):
    mine = fit(inside(tmp_path, KINDS[3]))
    mine.remove_cb(Seen)
    mine.export("learner.pkl")
    mine.add_cb(Seen())
    with pytest.warns(UserWarning, match="insecure pickle"):
        again = load_learner(tmp_path / "learner.pkl")
    again.create_opt()
    assert again.opt.opt.scheduler.last_epoch == 0  # an export has no optimizer's state
    assert_same_fit(fit(mine), fit(torchs(tmp_path, KINDS[3]), 6), steps=18)


def find_rates(learn):
    with learn.no_bar():
        learn.lr_find(num_it=12, end_lr=1, show_plot=False, suggest_funcs=None)
    return learn


def test_a_range_test_is_torchs(tmp_path):
    mine, theirs = (find_rates(learn) for learn in both(tmp_path))
    assert_same_fit(fit(mine, lr=0.1), fit(theirs, lr=0.1))


def test_a_range_test_leaves_the_schedule_where_it_was(tmp_path):
    mine = find_rates(inside(tmp_path, KINDS[3]))
    assert mine.opt.opt.scheduler.last_epoch == 0
    theirs = fit(torchs(tmp_path, KINDS[3]), lr=HYPER["lr"])
    assert_same_fit(fit(mine, lr=HYPER["lr"]), theirs, steps=18)


def test_freezing_forgets_the_momentum_and_not_the_schedule(tmp_path):
    mine, theirs = inside(tmp_path, KINDS[3]), torchs(tmp_path, KINDS[3])
    for learn in (mine, theirs):
        fit(learn)
        learn.freeze()
        assert not learn.opt.opt.state
        fit(learn, 1)
        learn.unfreeze()
        fit(learn, 1)
    assert_same_fit(mine, theirs)


def test_the_best_learner_is_loaded(tmp_path):
    mine, theirs = inside(tmp_path, KINDS[3]), torchs(tmp_path, KINDS[3])
    for learn in (mine, theirs):
        learn.add_cb(SaveModelCallback(monitor="valid_loss", with_opt=True))
        fit(learn)
    assert_same_fit(mine, theirs)
