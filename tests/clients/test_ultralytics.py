"""ultralytics' trainer, with torch.optim.SGD in the same loop beside it.

Classification: its models and data run without torchvision's operators, and the trainers of other
tasks inherit optimizer, scheduler and checkpoint from the same class.
"""

import functools
import os
import shutil
import tempfile
from unittest import mock

import pytest
import torch
from support import bare_torchvision
from support.twin import assert_same_state

from lrfused import FusedDecaySGD, fuse

if bare_torchvision.package() is None:
    pytest.skip("ultralytics needs the package torchvision", allow_module_level=True)
SETTINGS = tempfile.TemporaryDirectory()
with mock.patch.dict(os.environ, YOLO_CONFIG_DIR=SETTINGS.name, YOLO_OFFLINE="true"):
    pytest.importorskip("ultralytics", reason="the loop is that of the package ultralytics")

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from ultralytics.models.yolo.classify import ClassificationTrainer  # noqa: E402


class FusedTrainer(ClassificationTrainer):
    def build_optimizer(self, *args, **kwargs):
        optimizer = super().build_optimizer(*args, **kwargs)
        return fuse(optimizer)[0]


class FusedSchedulerTrainer(ClassificationTrainer):
    def _setup_scheduler(self):
        super()._setup_scheduler()
        if isinstance(self.optimizer, torch.optim.SGD):
            self.optimizer, self.scheduler = fuse(self.optimizer, self.scheduler)


OURS = [FusedTrainer, FusedSchedulerTrainer]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(6):
                pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def train(cls, images, folder, resume=None, callback=None, **settings):
    overrides = {
        "model": "yolo11n-cls.yaml",
        "data": str(images),
        "imgsz": 32,
        "epochs": 4,
        "batch": 4,
        "nbs": 8,
        "workers": 0,
        "device": "cpu",
        "optimizer": "SGD",
        "warmup_epochs": 2,
        "deterministic": False,
        "amp": False,
        "plots": False,
        "verbose": False,
        "project": str(folder),
        "name": cls.__name__,
        **settings,
    }
    if resume is not None:
        overrides["resume"] = str(resume)
    trainer = cls(overrides=overrides)
    trainer.seen, trainer.half = [], folder / f"half-{cls.__name__}.pt"

    def seen(trainer):
        groups = trainer.optimizer.param_groups
        trainer.seen.append([(g["lr"], g["momentum"], g["weight_decay"]) for g in groups])

    def saved(trainer):
        if trainer.epoch == 1:
            shutil.copy(trainer.last, trainer.half)

    trainer.add_callback("on_train_batch_end", seen)
    trainer.add_callback("on_model_save", saved)
    if callback is not None:
        trainer.add_callback("on_fit_epoch_end", callback)
    trainer.train()
    return trainer


def assert_same_training(mine, theirs):
    assert isinstance(mine.optimizer, FusedDecaySGD)
    assert type(theirs.optimizer) is torch.optim.SGD
    assert mine.seen == theirs.seen
    assert len(set(map(str, mine.seen))) > 1
    assert_same_state(mine.optimizer, theirs.optimizer)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """Return a function that trains once with each trainer."""
    return functools.cache(lambda cls: train(cls, images, tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("cls", OURS)
def test_a_training_is_torchs(cls, whole):
    assert_same_training(whole(cls), whole(ClassificationTrainer))
    epochs = [rates[0] for rates in whole(cls).seen]
    assert epochs[-1][0] < epochs[len(epochs) // 2][0]


@pytest.mark.parametrize("settings", [{"cos_lr": True}, {"warmup_epochs": 0}, {"freeze": 2}])
def test_settings(settings, images, tmp_path):
    mine, theirs = (
        train(cls, images, tmp_path, epochs=2, **settings)
        for cls in (FusedSchedulerTrainer, ClassificationTrainer)
    )
    assert_same_training(mine, theirs)


@pytest.mark.parametrize("cls", OURS)
@pytest.mark.parametrize("saved", [None, ClassificationTrainer], ids=["own", "of-torch"])
def test_a_training_is_resumed(cls, saved, whole, images, tmp_path):
    # Checkpoints keep momenta in fp16: no resumed training equals a whole one, torch's neither.
    mine = train(cls, images, tmp_path, resume=whole(saved or cls).half)
    again = train(ClassificationTrainer, images, tmp_path, resume=whole(ClassificationTrainer).half)
    assert_same_training(mine, again)
    assert len(mine.seen) == len(whole(cls).seen) // 2


def test_torchs_trainer_resumes_ours(whole, images, tmp_path):
    trainings = [
        train(ClassificationTrainer, images, tmp_path / cls.__name__, resume=whole(cls).half)
        for cls in (FusedTrainer, ClassificationTrainer)
    ]
    assert trainings[0].seen == trainings[1].seen
    assert_same_state(*(training.optimizer for training in trainings))


@pytest.mark.parametrize("cls", OURS)
def test_a_scheduler_made_anew_in_mid_run(cls, images, tmp_path):
    """As the trainer does after each epoch if `time` is set."""

    def anew(trainer):
        trainer._setup_scheduler()
        trainer.scheduler.last_epoch = trainer.epoch

    mine, theirs = (
        train(each, images, tmp_path, epochs=3, callback=anew)
        for each in (cls, ClassificationTrainer)
    )
    assert_same_training(mine, theirs)
