"""Composer's Trainer with FusedDecaySGD, and with torch.optim.SGD beside it."""

import gc
import warnings

import pytest
import torch
from support import clients
from support.clients import Steps, assert_same_steps
from support.frameworks import HYPER, Network, dataset
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from lrfused import CosineAnnealingLR, FusedDecaySGD

composer = clients.package("composer", "optim")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:No optimizer was specified:UserWarning"),
]

BATCHES, EPOCHS = 6, 3
STEPS = BATCHES * EPOCHS


class Model(composer.ComposerModel):
    def __init__(self):
        super().__init__()
        self.network = Network()

    def forward(self, batch):
        return self.network(*batch)

    def loss(self, outputs, batch):
        return outputs["loss"]


class Watch(composer.Callback):
    def __init__(self):
        self.steps = Steps()

    def batch_end(self, state, logger):
        self.steps.add(state.optimizers[0])


@pytest.fixture(autouse=True)
def folders():
    """Let go of Composer's temporary folders, which it leaves to the garbage collector."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class SGD(FusedDecaySGD):
    """Named as torch's, so that Composer finds its checkpoints."""


def torchs(groups):
    return torch.optim.SGD(groups, foreach=False, **HYPER)


def ours(groups):
    return FusedDecaySGD(groups, **HYPER)


def built_in(groups):
    return FusedDecaySGD(groups, schedule=CosineAnnealingLR(STEPS), **HYPER)


def by_the_trainer(groups):
    return FusedDecaySGD(groups, schedule=CosineAnnealingLR(STEPS), schedule_every=None, **HYPER)


def named(groups):
    return SGD(groups, **HYPER)


def cosine_of_torch(optimizer):
    return lr_scheduler.CosineAnnealingLR(optimizer, STEPS)


def cosine_of_composer(_):
    return composer.optim.CosineAnnealingWithWarmupScheduler("4ba", f"{EPOCHS}ep")


def handle(optimizer):
    return optimizer.scheduler


def none(_):
    return None


def run(folder, make, scheduler, *, by_batch=True, **options):
    model, watch = Model(), Watch()
    optimizer = make(model.network.groups())
    trainer = composer.Trainer(
        model=model,
        train_dataloader=DataLoader(dataset(), batch_size=6),
        max_duration=f"{EPOCHS}ep",
        optimizers=optimizer,
        schedulers=scheduler(optimizer),
        step_schedulers_every_batch=by_batch,
        device="cpu",
        progress_bar=False,
        run_name="run",
        save_folder=str(folder),
        callbacks=[watch],
        **options,
    )
    trainer.fit()
    trainer.close()
    return watch.steps


LOOPS = {
    "composers-scheduler": ((ours, cosine_of_composer), (torchs, cosine_of_composer)),
    "the-handle": ((by_the_trainer, handle), (torchs, cosine_of_torch)),
    "built-in": ((built_in, none), (torchs, cosine_of_torch)),
    "torchs-scheduler": ((ours, cosine_of_torch), (torchs, cosine_of_torch)),
}


@pytest.mark.parametrize(("mine", "other"), LOOPS.values(), ids=LOOPS)
def test_composer_trains_with_torchs_bits_and_resumes(tmp_path, mine, other):
    whole = run(tmp_path / "ours", *mine)
    assert_same_steps(whole, run(tmp_path / "theirs", *other))
    saved = str(tmp_path / "ours" / "ep1-ba6-rank0.pt")
    rest = run(tmp_path / "rest", *mine, load_path=saved)
    assert_same_steps(rest, Steps(whole[BATCHES:]))


def test_the_trainer_steps_the_handle_each_epoch(tmp_path):
    whole = run(tmp_path / "ours", by_the_trainer, handle, by_batch=False)
    theirs = run(tmp_path / "theirs", torchs, cosine_of_torch, by_batch=False)
    assert_same_steps(whole, theirs)


def test_a_class_named_as_torchs_takes_over_torchs_checkpoint(tmp_path):
    whole = run(tmp_path / "theirs", torchs, cosine_of_composer)
    saved = str(tmp_path / "theirs" / "ep1-ba6-rank0.pt")
    rest = run(tmp_path / "named", named, cosine_of_composer, load_path=saved)
    assert_same_steps(rest, Steps(whole[BATCHES:]))
    with pytest.warns(UserWarning, match="FusedDecaySGD is not in the state_dict"):
        run(tmp_path / "other", ours, cosine_of_composer, load_path=saved)


def test_composer_can_scale_its_own_schedulers_only(tmp_path):
    with pytest.raises(ValueError, match="unrecognized Scheduler"):
        run(tmp_path, by_the_trainer, handle, scale_schedule_ratio=0.5)
    steps = run(tmp_path, ours, cosine_of_composer, scale_schedule_ratio=2.0)
    assert len(steps) == 2 * STEPS


def test_the_page(printed):
    printed("composer")
