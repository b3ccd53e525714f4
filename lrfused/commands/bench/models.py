"""Build small models and their inputs, to train for real."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

SEED = 0


@dataclass(frozen=True)
class Lesson:
    """Hold a model to train and the shape of its input."""

    name: str
    title: str
    model: Callable[[], nn.Module] = field(repr=False)
    inputs: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def begin(self) -> tuple[nn.Module, torch.Tensor]:
        """Return a new model and its input, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return self.model(), torch.randn(self.inputs)


def mlp() -> nn.Module:
    """Build a perceptron of 6 tensors."""
    return nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def cnn() -> nn.Module:
    """Build a network of 10 tensors for images of 28 x 28."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
        nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 4 * 4, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def deep() -> nn.Module:
    """Build a network of 202 tensors: 50 layers, each normalized, and a head."""
    layers = [m for _ in range(50) for m in (nn.Linear(32, 32), nn.LayerNorm(32))]
    return nn.Sequential(*layers, nn.Linear(32, 10))


LESSONS = [
    Lesson("mlp", "MLP, 6 tensors", mlp, (32, 64)),
    Lesson("cnn", "CNN, 10 tensors", cnn, (16, 1, 28, 28)),
    Lesson("deep", "50 layers, 202 tensors", deep, (32, 32)),
]
