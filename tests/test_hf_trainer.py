"""Hugging Face's Trainer, with torch.optim.SGD in the same loop beside it."""

import pytest
import torch
from support.bits import assert_same_rates
from support.frameworks import KINDS, PLATEAU, Network, dataset, ours, torchs
from support.twin import assert_same_state, rates
from torch.utils.data import StackDataset

from lrfused import FusedDecaySGD

transformers = pytest.importorskip("transformers", reason="the loop is that of transformers")
pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")

from transformers import Trainer, TrainingArguments  # noqa: E402


class Train:
    """One training run and its results."""

    def __init__(self, folder, make, case, every=None, resume=None, **kwargs):
        network, (inputs, labels) = Network(), dataset().tensors
        args = TrainingArguments(
            **{"max_steps": 12, **kwargs},
            output_dir=folder,
            disable_tqdm=True,
            eval_strategy="no" if case is None or not case.is_plateau else "steps",
            eval_steps=2,
            logging_steps=1,
            metric_for_best_model="score",
            per_device_train_batch_size=6,
            report_to="none",
            use_cpu=True,
        )
        self.optimizer, scheduler = make(network.groups(), case, *([every] if every else []))
        self.trainer = Trainer(
            network,
            args,
            train_dataset=StackDataset(inputs=inputs, labels=labels),
            eval_dataset=StackDataset(inputs=inputs, labels=labels),
            compute_metrics=lambda _: {"score": 1.0 + self.trainer.state.global_step % 2},
            optimizers=(self.optimizer, scheduler),
        )
        self.trainer.train(resume_from_checkpoint=resume)

    @property
    def logged(self):
        return [row for row in self.trainer.state.log_history if "learning_rate" in row]

    def check(self, theirs):
        assert_same_state(self.optimizer, theirs.optimizer)
        assert len(self.logged) == len(theirs.logged) > 5
        for mine, other in zip(self.logged, theirs.logged, strict=True):
            assert type(mine["learning_rate"]) is float
            assert_same_rates([mine["learning_rate"]], [other["learning_rate"]], "logged")
            assert (mine["loss"], mine["grad_norm"]) == (other["loss"], other["grad_norm"])


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_a_handle_where_a_scheduler_is_expected(tmp_path, case):
    mine, theirs = (Train(tmp_path, make, case) for make in (ours, torchs))
    mine.check(theirs)
    assert rates(mine.optimizer)[0] != mine.logged[0]["learning_rate"]


def test_a_plateau_is_fed_the_metric_of_the_evaluation(tmp_path):
    mine, theirs = (Train(tmp_path, make, PLATEAU) for make in (ours, torchs))
    mine.check(theirs)
    assert rates(mine.optimizer)[0] < 0.05


LOOPS = {
    "accumulate": {"gradient_accumulation_steps": 4},
    "clip": {"max_grad_norm": 0.1},
    "bf16": {"bf16": True},
}


@pytest.mark.parametrize("kwargs", LOOPS.values(), ids=LOOPS)
def test_precisions_clipping_and_accumulation(tmp_path, kwargs):
    mine, theirs = (Train(tmp_path, make, KINDS[3], **kwargs) for make in (ours, torchs))
    mine.check(theirs)


@pytest.mark.parametrize("makes", [(ours, ours), (torchs, ours)], ids=["here", "from-torch"])
@pytest.mark.parametrize("case", [*KINDS[3:5], KINDS[11], PLATEAU], ids=str)
def test_a_run_is_resumed_from_a_checkpoint(tmp_path, case, makes):
    whole = Train(tmp_path / "whole", torchs, case, max_steps=10)
    Train(tmp_path, makes[0], case, max_steps=10, save_strategy="steps", save_steps=5)
    checkpoint = tmp_path / "checkpoint-5"
    rest = Train(tmp_path, makes[1], case, max_steps=10, resume=checkpoint)
    rest.check(whole)


def linear(params, every):
    """Make an optimizer and leave the scheduler to the Trainer, which attaches a linear one."""
    made = {"schedule": KINDS[3].ours(), "schedule_every": every} if every is not False else {}
    return FusedDecaySGD(params, lr=0.1, **made), None


@pytest.mark.parametrize("every", [False, None])
def test_without_a_scheduler_the_trainers_own_is_the_only_one(tmp_path, every):
    mine = Train(tmp_path, lambda params, _: linear(params, every), None)
    theirs = Train(
        tmp_path, lambda params, _: (torch.optim.SGD(params, 0.1, foreach=False), None), None
    )
    mine.check(theirs)
    assert rates(mine.optimizer) == [0.0, 0.0]


def test_one_attached_unasked_writes_last(tmp_path):
    mine = Train(tmp_path, lambda params, _: linear(params, 1), None)
    assert rates(mine.optimizer) == [0.0, 0.0]


def test_a_schedule_inside_the_step_is_refused_for_a_scheduler(tmp_path):
    with pytest.raises(RuntimeError, match="schedule_every=None"):
        Train(tmp_path, ours, KINDS[3], every=1)
