"""Accelerate: prepare the optimizer and its handle, accumulate gradients, save and go on.

    python examples/accelerate_loop.py

classifies scikit-learn's digits, two batches to a step, and goes on with new objects from the
checkpoint of `save_state`. Needs the packages accelerate and scikit-learn.
"""

import math
import tempfile

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lrfused import CosineAnnealingLR, FusedDecaySGD, warmup

EPOCHS = 8


def prepared(accelerator, digits):
    """Construct everything, as a new process does, and prepare it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    batches = DataLoader(digits, batch_size=32, shuffle=True)
    steps = EPOCHS * math.ceil(len(batches) / 2)
    optimizer = FusedDecaySGD(
        model.parameters(),
        lr=0.2,
        momentum=0.9,
        schedule=warmup(CosineAnnealingLR(steps - 20), 20),
        schedule_every=None,
    )
    return accelerator.prepare(model, optimizer, batches, optimizer.scheduler)


def train(accelerator, epochs, model, optimizer, batches, scheduler):
    """Run the loop of accelerate's documentation."""
    for epoch in epochs:
        for pixels, classes in batches:
            with accelerator.accumulate(model):
                accelerator.backward(cross_entropy(model(pixels), classes))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()  # accelerate skips it when it skips the optimizer's
                optimizer.zero_grad()
        print(f"epoch {epoch}: the next step's rate is {scheduler.get_last_lr()[0]:.5f}")


def main():
    """Train half of the epochs, save, and go on from there."""
    pixels, classes = load_digits(return_X_y=True)
    pixels, classes = torch.tensor(pixels).float() / 16, torch.tensor(classes)
    digits = TensorDataset(pixels[300:], classes[300:])
    with tempfile.TemporaryDirectory() as folder:
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        parts = prepared(accelerator, digits)
        train(accelerator, range(EPOCHS // 2), *parts)
        accelerator.save_state(folder)

        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        model, *rest = prepared(accelerator, digits)
        accelerator.load_state(folder)
        train(accelerator, range(EPOCHS // 2, EPOCHS), model, *rest)
    with torch.no_grad():
        right = model(pixels[:300]).argmax(1) == classes[:300]
    print(f"accuracy {right.float().mean():.3f}")


if __name__ == "__main__":
    main()
