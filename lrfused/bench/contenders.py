"""Build the optimizers that are compared, and check their results bit for bit."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

import lrfused

from .. import backends
from ..reference import ReferenceDecaySGD
from . import shapes

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
LEARNING_RATE = 0.1
# Changes within the validation, and is still far from underflow after a thousand steps.
STEP_SIZE, GAMMA = 2, 0.99
VALIDATION_STEPS = 5
TORCH = {
    "torch for-loop": {"foreach": False, "fused": False},
    "torch foreach": {"foreach": True, "fused": False},
    "torch fused": {"foreach": False, "fused": True},
}
INTEGER = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


@dataclass(frozen=True)
class Case:
    """Name a set of tensors to step over."""

    name: str
    title: str
    shapes: list[shapes.Shape]
    dtype: torch.dtype

    @property
    def elements(self) -> int:
        """Count the elements of all tensors."""
        return shapes.elements(self.shapes)

    @property
    def bytes_per_element(self) -> int:
        """Count the bytes that must move: read p, g, m; write p, m."""
        return 5 * self.dtype.itemsize


CASES = [
    Case("resnet50", "ResNet-50, fp32", shapes.resnet50(), torch.float32),
    Case("resnet50-bf16", "ResNet-50, bf16", shapes.resnet50(), torch.bfloat16),
    Case("small", "10,000 tensors of 64, fp32", shapes.many_small(), torch.float32),
    Case("large", "one tensor of 25 M, fp32", shapes.one_large(), torch.float32),
]


@dataclass
class Contender:
    """Hold one optimizer with its own parameters and gradients."""

    name: str
    parameters: list[torch.Tensor]
    optimizer: torch.optim.Optimizer
    step: Callable[[], object] = field(repr=False)

    @property
    def rate(self) -> float:
        """Read the rate that the next step will use."""
        return float(self.optimizer.param_groups[0]["lr"])

    def momentum(self, index: int) -> torch.Tensor:
        """Find a parameter's momentum buffer."""
        return self.optimizer.state[self.parameters[index]]["momentum_buffer"]


def torch_sgd(name: str, parameters: list[torch.Tensor]) -> Contender:
    """Follow one of torch's implementations by torch's scheduler."""
    optimizer = torch.optim.SGD(
        parameters,
        lr=LEARNING_RATE,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        **TORCH[name],
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=STEP_SIZE, gamma=GAMMA)

    def step() -> None:
        optimizer.step()
        scheduler.step()

    return Contender(name, parameters, optimizer, step)


def fastest() -> str:
    """Name the backend that is timed: the first of those that can be used here."""
    return next(name for name, why in backends.available().items() if why is None)


def fused_decay_sgd(parameters: list[torch.Tensor]) -> Contender:
    """Put the same schedule inside the step."""
    optimizer = lrfused.FusedDecaySGD(
        parameters,
        lr=LEARNING_RATE,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        schedule=lrfused.StepLR(step_size=STEP_SIZE, gamma=GAMMA),
        backend=fastest(),
    )
    return Contender("lrfused", parameters, optimizer, optimizer.step)


def reference_sgd(parameters: list[torch.Tensor]) -> Contender:
    """Run the definition, which is the oracle where torch's own result is not one."""
    optimizer = ReferenceDecaySGD(
        parameters,
        lr=LEARNING_RATE,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        schedule=lrfused.StepLR(step_size=STEP_SIZE, gamma=GAMMA),
    )
    return Contender("lrfused.reference", parameters, optimizer, optimizer.step)


def build(case: Case) -> tuple[list[Contender], Contender]:
    """Give every contender its own copy of the same parameters, and name the oracle.

    fp32: torch's for-loop. bf16: lrfused.reference, as torch's own CPU result depends on where
    an element falls in a SIMD block.
    """
    generator = torch.Generator().manual_seed(1)
    initial = [torch.randn(s, generator=generator).to(case.dtype) for s in case.shapes]

    def copy() -> list[torch.Tensor]:
        parameters = [torch.empty_like(p).copy_(p).requires_grad_() for p in initial]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter, requires_grad=False)
        return parameters

    contenders = [torch_sgd(name, copy()) for name in TORCH]
    contenders.append(fused_decay_sgd(copy()))
    oracle = contenders[0] if case.dtype == torch.float32 else reference_sgd(copy())
    return contenders, oracle


def validate(case: Case, contenders: list[Contender], oracle: Contender) -> dict[str, dict]:
    """Step everyone on the same gradients and compare parameters, momenta and rates as integers.

    Raises AssertionError where lrfused differs from the oracle, or in fp32 torch's foreach from
    the for-loop. The others are competitors only: what they differ by is returned.
    """
    generator = torch.Generator().manual_seed(2)
    everyone = contenders if oracle in contenders else [*contenders, oracle]
    for step in range(VALIDATION_STEPS):
        for index, shape in enumerate(case.shapes):
            gradient = torch.randn(shape, generator=generator)
            for contender in everyone:
                mine = contender.parameters[index].grad
                assert mine is not None
                mine.copy_(gradient)
        for contender in everyone:
            contender.step()
            rates = contender.rate.hex(), oracle_rate(step + 1).hex()
            if rates[0] != rates[1]:
                raise AssertionError(f"{case.title}, {contender.name}: rates differ: {rates}")
    distances = {c.name: distance(case, c, oracle) for c in everyone if c is not oracle}
    equal_by_promise = {"lrfused"} | ({"torch foreach"} if case.dtype == torch.float32 else set())
    for name in equal_by_promise:
        if distances[name]["differing"]:
            raise AssertionError(
                f"{case.title}: {name} is not {oracle.name} to the bit: {distances[name]}"
            )
    return distances


def oracle_rate(steps: int) -> float:
    """Give the rate that torch's StepLR has after so many steps."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=LEARNING_RATE)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=STEP_SIZE, gamma=GAMMA)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return optimizer.param_groups[0]["lr"]


def distance(case: Case, contender: Contender, oracle: Contender) -> dict[str, int | str]:
    """Measure the largest distance to the oracle in ulp, and count the values that differ."""
    largest, differing = 0, 0
    for index in range(len(case.shapes)):
        pairs = (
            (contender.parameters[index].detach(), oracle.parameters[index].detach()),
            (contender.momentum(index), oracle.momentum(index)),
        )
        for ours, theirs in pairs:
            if torch.equal(ours.view(INTEGER[case.dtype]), theirs.view(INTEGER[case.dtype])):
                continue
            gap = (_ordered(ours) - _ordered(theirs)).abs()
            largest = max(largest, int(gap.max()))
            differing += int(gap.count_nonzero())
    return {"oracle": oracle.name, "max_ulp": largest, "differing": differing}


def _ordered(values: torch.Tensor) -> torch.Tensor:
    """Map floats to integers in the same order, one apart where the floats are neighbours."""
    bits = values.view(INTEGER[values.dtype]).long()
    sign = -(1 << (8 * values.element_size() - 1))
    return torch.where(bits < 0, sign - 1 - bits, bits)
