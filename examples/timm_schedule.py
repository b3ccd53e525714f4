"""timm: its schedulers write the rates, and a FusedDecaySGD uses the written rates.

    python examples/timm_schedule.py

classifies scikit-learn's digits as timm's train.py does, one layer at a third of the rate of the
other. Needs the packages timm and scikit-learn.
"""

import torch
from sklearn.datasets import load_digits
from timm.scheduler import create_scheduler_v2
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lrfused import FusedDecaySGD

EPOCHS = 8


def main():
    """Train, with a scheduler of timm's that moves the rates at every update."""
    torch.manual_seed(0)
    pixels, classes = load_digits(return_X_y=True)
    pixels, classes = torch.tensor(pixels).float() / 16, torch.tensor(classes)
    batches = DataLoader(TensorDataset(pixels[300:], classes[300:]), batch_size=64, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    groups = [
        {"params": model[0].parameters(), "lr_scale": 1 / 3},
        {"params": model[2].parameters(), "lr_scale": 1.0},
    ]
    optimizer = FusedDecaySGD(groups, lr=0.4, momentum=0.9, nesterov=True)
    scheduler, epochs = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=EPOCHS,
        warmup_epochs=1,
        warmup_lr=1e-3,
        step_on_epochs=False,
        updates_per_epoch=len(batches),
    )
    updates = 0
    for epoch in range(epochs):
        for some, labels in batches:
            optimizer.zero_grad()
            cross_entropy(model(some), labels).backward()
            optimizer.step()
            updates += 1
            scheduler.step_update(num_updates=updates)
        scheduler.step(epoch + 1)
        rates = ", ".join(f"{group['lr']:.4f}" for group in optimizer.param_groups)
        print(f"epoch {epoch}: the next step's rates are {rates}")
    with torch.no_grad():
        right = model(pixels[:300]).argmax(1) == classes[:300]
    print(f"accuracy {right.float().mean():.3f}")


if __name__ == "__main__":
    main()
