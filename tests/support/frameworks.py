"""Inputs of a framework's loop: one schedule of each kind, a network, and its data."""

from typing import Any

import torch
from cases import Schedule, named
from torch import nn
from torch.utils.data import TensorDataset

from lrfused import FusedDecaySGD
from support.twin import numbers, sgd

KINDS = named(
    "StepLR-third", "MultiStepLR-twice", "ExponentialLR-usual", "CosineAnnealingLR-ten",
    "LambdaLR-warmup", "ConstantLR-default", "LinearLR-default", "PolynomialLR-square",
    "MultiplicativeLR-object", "CosineAnnealingWarmRestarts-doubling", "CyclicLR-triangular",
    "OneCycleLR-linear", "SequentialLR-warmup-cosine", "ChainedScheduler-relative",
)  # fmt: skip
PLATEAU = named("ReduceLROnPlateau-hasty")[0]
HYPER = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}


class Network(nn.Module):
    """A small regression, the same each time it is made; gives loss and prediction by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
        for i, param in enumerate(self.parameters()):
            param.data.copy_(numbers(*param.shape, seed=i).clamp(-1, 1))

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = self.layers(inputs)
        return {"loss": (outputs - labels).square().mean(), "logits": outputs}

    def groups(self) -> list[dict[str, Any]]:
        """Put the biases into a group of their own, without decay and at another rate."""
        biases = [p for p in self.parameters() if p.dim() == 1]
        weights = [p for p in self.parameters() if p.dim() > 1]
        return [{"params": weights}, {"params": biases, "weight_decay": 0.0, "lr": 0.02}]


def dataset(count: int = 36) -> TensorDataset:
    inputs = numbers(count, 8, seed=11).clamp(-1, 1)
    return TensorDataset(inputs, inputs.sum(1, keepdim=True).sin())


def torchs(params: Any, case: Schedule | None) -> tuple[torch.optim.Optimizer, Any]:
    """Make torch's optimizer and its scheduler."""
    optimizer = sgd(params, **HYPER)
    return optimizer, case and case.torchs(optimizer)


def ours(params: Any, case: Schedule | None, every: int | None = None) -> tuple[Any, Any]:
    """Make ours and its handle, which the loop steps unless the optimizer does."""
    schedule = case and case.ours()
    optimizer = FusedDecaySGD(params, schedule=schedule, schedule_every=every, **HYPER)
    return optimizer, case and optimizer.scheduler
