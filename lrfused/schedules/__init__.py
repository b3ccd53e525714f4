"""torch's learning-rate schedulers without their optimizer: values that say what will be bound.

Each takes its torch namesake's arguments, under the same names and with the same defaults, less
`optimizer`. An instance is an immutable value; `bind` makes the torch scheduler it stands for.
"""

from .adopted import Adopted
from .base import Schedule
from .compositions import ChainedScheduler, SequentialLR
from .cycles import CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR
from .decays import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from .plateau import ReduceLROnPlateau
from .recipes import cosine_with_warmup, inverse_sqrt, warmup, warmup_stable_decay

__all__ = [
    "Adopted",
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "Schedule",
    "SequentialLR",
    "StepLR",
    "cosine_with_warmup",
    "inverse_sqrt",
    "warmup",
    "warmup_stable_decay",
]
