"""Build the optimizers of other packages, if installed and able to express the update.

A competitor that cannot be timed raises Unable, with the reason. None of them is needed by
lrfused: `pip install lrfused[bench]`.
"""

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .contenders import (
    GAMMA,
    HYPER,
    LEARNING_RATE,
    MOMENTUM,
    STEP_SIZE,
    WEIGHT_DECAY,
    Contender,
    Maker,
    OfTorch,
    Tensors,
    Unable,
    followed,
)
from .numbers import Numbers

# The most tensors that each compiler gets: more take minutes. With a float rate every change
# compiles again, until torch gives up at the eighth.
TENSORS_FOR_INDUCTOR = 250
TENSORS_FOR_INDUCTOR_EIGHT_TIMES = 1
TENSORS_FOR_XLA = 1_000


def _installed(make: Maker) -> Maker:
    def made(tensors: Tensors) -> Contender:
        try:
            return make(tensors)
        except ModuleNotFoundError as error:
            raise Unable(f"{error.name} is not installed: pip install lrfused[bench]") from error

    return made


def _compilable(tensors: Tensors, most: int, times: str = "") -> None:
    if len(tensors.shapes) > most:
        raise Unable(f"takes minutes to compile {len(tensors.shapes):,} tensors{times}")


@dataclass
class Compiled(OfTorch):
    """Hold torch's SGD under torch.compile."""

    alone: bool = True  # compilations for one count towards the limit of another

    def settle(self) -> None:
        """Step until torch has compiled everything, or given up."""
        begin = time.perf_counter()
        for _ in range(STEP_SIZE * (torch._dynamo.config.recompile_limit + 1)):
            self.step()
        if isinstance(self.optimizer.param_groups[0]["lr"], float):
            seconds = time.perf_counter() - begin
            self.note = f"eager after 8 compilations, one a change of the rate: {seconds:.0f} s"

    def close(self) -> None:
        """Drop the compiled code."""
        torch._dynamo.reset()


def _torch_compile(tensors: Tensors, lr: float | torch.Tensor) -> Contender:
    torch._logging.set_logs(dynamo=logging.ERROR)
    torch._inductor.config.cpp.dynamic_threads = True  # as many as there are when it runs
    parameters = tensors.parameters()
    optimizer = torch.optim.SGD(parameters, **{**HYPER, "lr": lr})
    first = True

    def update() -> None:
        optimizer.step()

    compiled: Callable[[], object] = torch.compile(update)

    def step() -> None:
        nonlocal first
        if first:  # it makes the momenta, in another graph than all later steps
            optimizer.step()
        else:
            compiled()
        first = False

    return Compiled(parameters, optimizer, followed(optimizer, step))


def torch_compile_float(tensors: Tensors) -> Contender:
    """Compile torch's SGD, with the rate as a float."""
    _compilable(tensors, TENSORS_FOR_INDUCTOR_EIGHT_TIMES, ", anew for every change of the rate")
    return _torch_compile(tensors, LEARNING_RATE)


def torch_compile_tensor(tensors: Tensors) -> Contender:
    """Compile torch's SGD once, with the rate as a tensor."""
    _compilable(tensors, TENSORS_FOR_INDUCTOR)
    return _torch_compile(tensors, torch.tensor(LEARNING_RATE, dtype=torch.float64))


def optimi(tensors: Tensors) -> Contender:
    """Build torch-optimi's SGD; Kahan summation, its default for bf16, is another update."""
    from optimi import SGD

    parameters = tensors.parameters()
    optimizer = SGD(parameters, **HYPER, kahan_sum=False)
    return OfTorch(parameters, optimizer, followed(optimizer), momentum_key="exp_avg")


@dataclass
class OfFlashOptim(OfTorch):
    """Hold FlashOptim's SGD; its momenta are objects of a class of its own."""

    def results(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the parameters and the momenta."""
        state = self.optimizer.state
        momenta = [state[p][self.momentum_key].materialize() for p in self.parameters]
        return [p.detach() for p in self.parameters], momenta

    def tensors(self) -> list[torch.Tensor]:
        """List nothing: the momenta are no tensors."""
        return []


def flashoptim(tensors: Tensors) -> Contender:
    """Build FlashOptim's SGD without the parts that need a GPU: kernels, and states in 8 bits."""
    from flashoptim import FlashSGD

    parameters = tensors.parameters()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "master_weight_bits=None with non-fp32")
        optimizer = FlashSGD(
            parameters, **HYPER, quantize=False, master_weight_bits=None, fused=False
        )
    return OfFlashOptim(parameters, optimizer, followed(optimizer))


@dataclass
class OfHeavyBall(OfTorch):
    """Hold HeavyBall's SGD, which keeps its states in a dict for each part of a parameter."""

    def results(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the parameters and the momenta."""
        state = self.optimizer.state
        momenta = [state[p][0][self.momentum_key].view(p.shape) for p in self.parameters]
        return [p.detach() for p in self.parameters], momenta

    def tensors(self) -> list[torch.Tensor]:
        """List nothing: the momenta have other shapes."""
        return []


def heavyball(tensors: Tensors) -> Contender:
    """Build HeavyBall's SGD without weight decay, as its own is decoupled from the momentum."""
    from heavyball import SGD

    warnings.filterwarnings("ignore", "Learning rate changed between steps", UserWarning)
    parameters = tensors.parameters()
    optimizer = SGD(parameters, lr=LEARNING_RATE, beta=MOMENTUM, weight_decay=0)
    return OfHeavyBall(
        parameters,
        optimizer,
        followed(optimizer),
        momentum_key="heavyball_momentum_momentum_0",
        note="no weight decay",
    )


def schedulefree(tensors: Tensors) -> Contender:
    """Refuse: no setting of it is SGD with momentum and a schedule."""
    import schedulefree  # noqa: F401

    raise Unable("computes something else: averages the iterates in the place of a schedule")


class OfOptax:
    """Hold optax's SGD, jitted, with parameters and state donated; JAX runs on the CPU."""

    alone = False
    note = ""

    def __init__(self, tensors: Tensors) -> None:
        import jax
        import optax

        _compilable(tensors, TENSORS_FOR_XLA)
        self._jax = jax
        rate = optax.exponential_decay(LEARNING_RATE, STEP_SIZE, GAMMA, staircase=True)
        optimizer = optax.chain(
            optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(rate, momentum=MOMENTUM)
        )

        def update(parameters: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
            updates, state = optimizer.update(gradients, state, parameters)
            return optax.apply_updates(parameters, updates), state

        self._update = jax.jit(update, donate_argnums=(0, 1))
        self._drawn = tensors.parameters()  # the gradients are drawn into these
        self._parameters = [self._to_jax(p.detach()) for p in self._drawn]
        self._gradients: list[Any] = []
        self._state = optimizer.init(self._parameters)
        for p in self._drawn:
            p.data = torch.empty(0)

    def _to_jax(self, tensor: torch.Tensor) -> Any:
        import ml_dtypes

        if tensor.dtype == torch.bfloat16:
            return self._jax.numpy.array(tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16))
        return self._jax.numpy.array(tensor.numpy())

    def _to_torch(self, array: Any) -> torch.Tensor:
        import numpy as np

        numbers = np.array(array)
        if numbers.dtype != np.float32:
            return torch.from_numpy(numbers.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(numbers)

    def give(self, numbers: Numbers, turn: int) -> None:
        """Fill the gradients."""
        gradients = [p.grad for p in self._drawn if p.grad is not None]
        numbers.fill(gradients, turn)
        self._gradients = [self._to_jax(gradient) for gradient in gradients]

    def step(self) -> None:
        """Update the parameters with the rate of the step, and wait."""
        self._parameters, self._state = self._update(self._parameters, self._state, self._gradients)
        self._jax.block_until_ready(self._parameters)

    def results(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the parameters and the momenta."""
        momenta = self._state[1][0].trace
        return [self._to_torch(p) for p in self._parameters], [self._to_torch(m) for m in momenta]

    def zero_grad(self) -> None:
        """Do nothing: each step is given its gradients."""

    def renew(self) -> None:
        """Do nothing: `zero_grad` cleared nothing."""

    def settle(self) -> None:
        """Do nothing: the second step has compiled everything."""

    def tensors(self) -> list[torch.Tensor]:
        """List nothing: they are JAX's."""
        return []

    def close(self) -> None:
        """Drop the compiled code."""
        self._jax.clear_caches()


COMPILED = "torch.compile, tensor lr"
HEAVYBALL = "HeavyBall"
RIVALS: dict[str, Maker] = {
    "torch.compile, float lr": torch_compile_float,
    COMPILED: torch_compile_tensor,
    "optax on JAX": _installed(OfOptax),
    "torch-optimi": _installed(optimi),
    "flashoptim": _installed(flashoptim),
    "schedulefree": _installed(schedulefree),
}
# In training loops alone: it consumes its gradients.
IN_LOOPS: dict[str, Maker] = {
    COMPILED: torch_compile_tensor,
    HEAVYBALL: _installed(heavyball),
}
PACKAGES = ("optax", "jax", "torch-optimi", "flashoptim", "schedulefree", "heavyball")
