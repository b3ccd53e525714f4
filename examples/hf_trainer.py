"""Hugging Face's Trainer: hand it the optimizer and its handle, and it makes no linear schedule.

    python examples/hf_trainer.py

classifies scikit-learn's digits with a schedule that goes by steps, then with a plateau that is
fed the accuracy of each evaluation. Needs the packages transformers, accelerate and scikit-learn.
"""

import tempfile

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import StackDataset
from transformers import Trainer, TrainingArguments

from lrfused import FusedDecaySGD, OneCycleLR, ReduceLROnPlateau

STEPS = 180


class Classifier(nn.Module):
    """Compute the loss and the logits, as the Trainer expects them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, pixels, labels):
        """Return both by name."""
        logits = self.layers(pixels)
        return {"loss": cross_entropy(logits, labels), "logits": logits}


def train(folder, schedule, **arguments):
    """Train with one schedule; return the accuracy."""
    torch.manual_seed(0)
    model = Classifier()
    optimizer = FusedDecaySGD(
        model.parameters(), lr=0.1, momentum=0.9, schedule=schedule, schedule_every=None
    )
    pixels, classes = load_digits(return_X_y=True)
    pixels, classes = torch.tensor(pixels).float() / 16, torch.tensor(classes)
    trainer = Trainer(
        model,
        TrainingArguments(
            folder,
            disable_tqdm=True,
            logging_steps=STEPS // 6,
            max_steps=STEPS,
            per_device_eval_batch_size=300,
            per_device_train_batch_size=64,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            **arguments,
        ),
        train_dataset=StackDataset(pixels=pixels[300:], labels=classes[300:]),
        eval_dataset=StackDataset(pixels=pixels[:300], labels=classes[:300]),
        compute_metrics=lambda p: {"accuracy": (p.predictions.argmax(1) == p.label_ids).mean()},
        optimizers=(optimizer, optimizer.scheduler),
    )
    trainer.train()
    return trainer.evaluate()["eval_accuracy"]


def main():
    """Train twice."""
    with tempfile.TemporaryDirectory() as folder:
        train(folder, OneCycleLR(max_lr=0.3, total_steps=STEPS))
        accuracy = train(
            folder,
            ReduceLROnPlateau("max", factor=0.3, patience=1),
            eval_strategy="steps",
            eval_steps=20,
            metric_for_best_model="accuracy",
        )
    print(f"accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
