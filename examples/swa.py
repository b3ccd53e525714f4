"""torch.optim.swa_utils: a schedule, then SWALR, and two averages of the weights.

    python examples/swa.py

classifies scikit-learn's digits. With `schedule_every=None` the schedule and SWALR take turns, as
two schedulers of torch's do. Needs the package scikit-learn.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, TensorDataset

from lrfused import CosineAnnealingLR, FusedDecaySGD

EPOCHS, START = 12, 8


def main():
    """Train, and compare the weights with their averages."""
    torch.manual_seed(0)
    pixels, classes = load_digits(return_X_y=True)
    pixels, classes = torch.tensor(pixels).float() / 16, torch.tensor(classes)
    batches = DataLoader(TensorDataset(pixels[300:], classes[300:]), batch_size=64, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = FusedDecaySGD(
        model.parameters(),
        lr=0.2,
        momentum=0.9,
        schedule=CosineAnnealingLR(EPOCHS),
        schedule_every=None,
    )
    annealing = SWALR(optimizer, swa_lr=0.1, anneal_epochs=2)
    mean, ema = AveragedModel(model), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.98))
    for epoch in range(EPOCHS):
        for some, labels in batches:
            optimizer.zero_grad()
            cross_entropy(model(some), labels).backward()
            optimizer.step()
            ema.update_parameters(model)
        if epoch < START:
            optimizer.scheduler.step()
        else:
            mean.update_parameters(model)
            annealing.step()
        print(f"epoch {epoch}: the next step's rate is {optimizer.param_groups[0]['lr']:.5f}")
    for name, average in {"last": model, "ema": ema, "mean": mean}.items():
        if average is not model:
            update_bn(batches, average)
        average.eval()
        with torch.no_grad():
            right = average(pixels[:300]).argmax(1) == classes[:300]
        print(f"{name} weights: accuracy {right.float().mean():.3f}")


if __name__ == "__main__":
    main()
