"""torch's learning-rate schedulers as values, without an optimizer.

Each takes the arguments of its torch namesake, with the same names and defaults, except
`optimizer`. An instance is immutable; `bind` constructs the torch scheduler.
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
