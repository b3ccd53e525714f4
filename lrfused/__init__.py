"""SGD and its learning-rate schedule in one fused step, bit for bit torch's."""

from .fuse import fuse
from .integrations import compiled_operator as _ops  # noqa: F401, registers torch.ops.lrfused
from .integrations.in_backward import update_in_backward
from .integrations.ranks import check_ranks
from .optimizer import FusedDecaySGD
from .schedules import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    Schedule,
    SequentialLR,
    StepLR,
    cosine_with_warmup,
    inverse_sqrt,
    warmup,
    warmup_stable_decay,
)

__version__ = "0.1.0"

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "FusedDecaySGD",
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
    "check_ranks",
    "cosine_with_warmup",
    "fuse",
    "inverse_sqrt",
    "update_in_backward",
    "warmup",
    "warmup_stable_decay",
]
