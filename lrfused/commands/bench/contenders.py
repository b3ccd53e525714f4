"""Build the optimizers to compare: lrfused's and torch's own; `rivals` has the others."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

import lrfused

from ... import backends
from ...reference import ReferenceDecaySGD
from .numbers import Numbers
from .shapes import Shape

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
LEARNING_RATE = 0.1
# The rate changes within the validation, and is far from underflow after a thousand steps.
STEP_SIZE, GAMMA = 2, 0.99
HYPER: dict[str, Any] = {"lr": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
GRADIENT = 1e-3  # every element of a gradient that is made again
LRFUSED = "lrfused"
FOR_LOOP, FOREACH, FUSED = "torch for-loop", "torch foreach", "torch fused"
REFERENCE = "lrfused.reference"


class Unable(Exception):
    """Report why a competitor cannot be timed on a case."""


class Stepper(Protocol):
    """Make steps, and give their results to compare."""

    def give(self, numbers: Numbers, turn: int) -> None:
        """Fill the gradients."""

    def step(self) -> object:
        """Update the parameters, then move the rate."""

    def results(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the parameters and the momenta."""


class Contender(Stepper, Protocol):
    """Step one optimizer with its own parameters and gradients."""

    alone: bool  # whether it must not share its rounds with other rivals
    note: str  # a remark for its row

    def zero_grad(self) -> object:
        """Clear the gradients, as before a backward pass."""

    def renew(self) -> None:
        """Make the gradients that `zero_grad` cleared again, as a backward pass does."""

    def settle(self) -> None:
        """Make the first, slower steps, untimed."""

    def tensors(self) -> list[torch.Tensor]:
        """List all tensors of a step, if others of the same shapes may take their memory."""

    def close(self) -> None:
        """Free whatever it holds beyond its tensors."""


class Tensors(Protocol):
    """Hold the tensors to build an optimizer for: those of a case, or a model's."""

    @property
    def shapes(self) -> list[Shape]:
        """List the tensors' shapes."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of all tensors."""

    def parameters(self) -> list[torch.Tensor]:
        """Return the parameters."""


Maker = Callable[[Tensors], Contender]


@dataclass
class OfTorch:
    """Hold a torch optimizer, and the function that makes its step and its schedule's."""

    parameters: list[torch.Tensor]
    optimizer: torch.optim.Optimizer
    step: Callable[[], object] = field(repr=False)
    momentum_key: str = "momentum_buffer"
    alone: bool = False
    note: str = ""

    def give(self, numbers: Numbers, turn: int) -> None:
        """Fill the gradients."""
        numbers.fill((p.grad for p in self.parameters if p.grad is not None), turn)

    def results(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the parameters and the momenta."""
        state = self.optimizer.state
        momenta = [state[p][self.momentum_key] for p in self.parameters]
        return [p.detach() for p in self.parameters], momenta

    def zero_grad(self) -> None:
        """Clear the gradients, as before a backward pass."""
        self.optimizer.zero_grad()

    def renew(self) -> None:
        """Make the gradients that `zero_grad` cleared again, as a backward pass does."""
        for p in self.parameters:
            if p.grad is None:
                p.grad = torch.full_like(p, GRADIENT, requires_grad=False)

    def settle(self) -> None:
        """Do nothing."""

    def tensors(self) -> list[torch.Tensor]:
        """List the parameters, gradients and momenta."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return [*self.parameters, *gradients, *self.results()[1]]

    def close(self) -> None:
        """Do nothing."""


def followed(
    optimizer: torch.optim.Optimizer, step: Callable[[], object] | None = None
) -> Callable[[], None]:
    """Return a function that makes an optimizer's step, then a step of torch's scheduler."""
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=STEP_SIZE, gamma=GAMMA)
    update = step or optimizer.step

    def both() -> None:
        update()
        scheduler.step()

    return both


def _torchs(**choice: bool) -> Maker:
    def make(tensors: Tensors) -> Contender:
        parameters = tensors.parameters()
        optimizer = torch.optim.SGD(parameters, **HYPER, **choice)
        return OfTorch(parameters, optimizer, followed(optimizer))

    return make


def fastest() -> str:
    """Return the backend to time: the first that can be used here."""
    return next(name for name, why in backends.available().items() if why is None)


def fused_decay_sgd(tensors: Tensors) -> Contender:
    """Build lrfused's optimizer, with the schedule inside the step."""
    parameters = tensors.parameters()
    schedule = lrfused.StepLR(step_size=STEP_SIZE, gamma=GAMMA)
    optimizer = lrfused.FusedDecaySGD(parameters, **HYPER, schedule=schedule, backend=fastest())
    return OfTorch(parameters, optimizer, optimizer.step)


def reference_sgd(tensors: Tensors) -> Contender:
    """Build the reference, the oracle where torch's own result cannot be one."""
    parameters = tensors.parameters()
    schedule = lrfused.StepLR(step_size=STEP_SIZE, gamma=GAMMA)
    optimizer = ReferenceDecaySGD(parameters, **HYPER, schedule=schedule)
    return OfTorch(parameters, optimizer, optimizer.step)


def without_decay(tensors: Tensors) -> Contender:
    """Build torch's for-loop without weight decay, the oracle of those that decay otherwise."""
    parameters = tensors.parameters()
    optimizer = torch.optim.SGD(
        parameters, **{**HYPER, "weight_decay": 0.0}, foreach=False, fused=False
    )
    return OfTorch(parameters, optimizer, followed(optimizer))


OWN: dict[str, Maker] = {
    LRFUSED: fused_decay_sgd,
    FOR_LOOP: _torchs(foreach=False, fused=False),
    FOREACH: _torchs(foreach=True, fused=False),
    FUSED: _torchs(foreach=False, fused=True),
}


def reason(name: str, error: Exception) -> str:
    """Return why a competitor is not timed; raise the error of lrfused or of torch's own SGD."""
    if isinstance(error, Unable):
        return str(error)
    if name in OWN:
        raise error
    first, *_ = str(error).split("\n")
    return f"fails with {type(error).__name__}: {first}"


def oracle(dtype: torch.dtype) -> tuple[str, Maker]:
    """Return the name and the maker of the oracle.

    fp32: torch's for-loop. bf16: lrfused.reference, as torch's own CPU result depends on where
    an element falls in a SIMD block.
    """
    if dtype == torch.float32:
        return FOR_LOOP, OWN[FOR_LOOP]
    return REFERENCE, reference_sgd


def must_be_equal(dtype: torch.dtype) -> set[str]:
    """Return the contenders that must have the oracle's bits."""
    return {LRFUSED, FOR_LOOP, FOREACH} if dtype == torch.float32 else {LRFUSED}
