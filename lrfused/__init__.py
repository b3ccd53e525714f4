"""SGD and its learning-rate schedule in one fused step, bit for bit torch's."""

from .optimizer import FusedDecaySGD
from .schedules import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    MultiStepLR,
    ReduceLROnPlateau,
    Schedule,
    StepLR,
)

__version__ = "0.1.0"

__all__ = [
    "CosineAnnealingLR",
    "ExponentialLR",
    "FusedDecaySGD",
    "LambdaLR",
    "MultiStepLR",
    "ReduceLROnPlateau",
    "Schedule",
    "StepLR",
]
