"""The optimizers that step over a case, each with its schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lrfused import FusedDecaySGD, StepLR, backends

from .cases import MAX_GRAD_NORM, Case
from .machine import Machine

HYPER = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
STEP_SIZE, GAMMA = 3, 0.99
MOST_COMPILED = 200  # tensors; torch.compile takes minutes for more
MOST_PROFILED = 1_000  # tensors that are stepped over one by one; a trace of more takes minutes
INLINED = 700  # tensors that are sure to fit into one launch's arguments, as a captured one needs


@dataclass
class Made:
    """An optimizer with its own parameters; `step` makes its schedule's step too."""

    params: list[Tensor]
    optimizer: torch.optim.Optimizer
    step: Callable[[], object]
    masters: list[Tensor] = field(default_factory=list)  # if the optimizer steps over these

    def values(self) -> list[Tensor]:
        """Copy the parameters and momentum buffers, which are compared."""
        stepped = self.masters or self.params
        buffers = [self.optimizer.state[p]["momentum_buffer"] for p in stepped]
        return [t.detach().clone() for t in (*self.params, *buffers)]


@dataclass(frozen=True)
class Contender:
    """A row of the table; `make` is called when its turn comes, as a GPU may not hold all."""

    name: str
    make: Callable[[], Made]
    exact: bool = False  # whether it promises the bits of the case's first contender
    launches: int | None = None  # that its design promises for a step with its schedule
    timed: bool = True
    profiled: bool = True
    compiled: bool = False  # by torch.compile, which takes long

    @property
    def ours(self) -> bool:
        """Return whether it is lrfused."""
        return self.name.startswith("lrfused")


def contenders(case: Case, machine: Machine) -> list[Contender]:
    """List the contenders of a case, the oracle first."""
    compiled = not case.beside and machine.gpu and len(case.shapes) <= MOST_COMPILED
    reference = ours("lrfused, reference", "reference", case, machine)
    listed = [reference] if case.beside == "clipped" else []  # not clip_grad_norm_'s bits
    listed.append(torchs("torch for-loop", case, machine, foreach=False, fused=False))
    usable = [name for name, why in backends.available().items() if why is None]
    if "cuda" in usable:
        listed.append(ours("lrfused", "cuda", case, machine))
    if "cuda" in usable and machine.gpu:
        listed.append(ours("lrfused, graph", "cuda", case, machine, graph=True))
    if "triton" in usable and machine.gpu:
        listed.append(ours("lrfused, Triton", "triton", case, machine))
    listed.append(torchs("torch foreach", case, machine, foreach=True))
    if machine.gpu or case.dtype == torch.float32 or case.beside == "masters":
        listed.append(torchs("torch fused", case, machine, fused=True))
        if not case.beside:
            name = "torch fused, tensor lr"
            listed.append(torchs(name, case, machine, tensor_lr=True, fused=True))
    if compiled:
        name = "torch.compile, tensor lr"
        listed.append(torchs(name, case, machine, tensor_lr=True, compiled=True, foreach=True))
    return listed


def draw(case: Case, machine: Machine) -> list[Tensor]:
    """Draw a case's parameters, the same for everyone, with room for their gradients."""
    generator = machine.generator(1)
    made = []
    for shape in case.shapes:
        p = torch.randn(shape, generator=generator, device=machine.device, dtype=case.dtype)
        p.grad = torch.empty_like(p)
        made.append(p.requires_grad_())
    return made


def torchs(
    name: str,
    case: Case,
    machine: Machine,
    *,
    tensor_lr: bool = False,
    compiled: bool = False,
    **kwargs: bool,
) -> Contender:
    """Describe torch.optim.SGD with torch's StepLR; clipping and masters are made by hand."""

    def make() -> Made:
        own = draw(case, machine)
        hyper: dict[str, Any] = dict(HYPER)
        if tensor_lr:
            hyper["lr"] = torch.tensor(HYPER["lr"], device=machine.device)
        masters = [p.detach().float() for p in own] if case.beside == "masters" else []
        optimizer = torch.optim.SGD(masters or own, **hyper, **kwargs)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, STEP_SIZE, GAMMA)
        inner = torch.compile(optimizer.step) if compiled else optimizer.step

        @torch.no_grad()
        def step() -> None:
            if case.beside == "clipped":
                torch.nn.utils.clip_grad_norm_(own, MAX_GRAD_NORM)
            for p, master in zip(own, masters, strict=False):
                master.grad = p.grad.float()
            inner()
            scheduler.step()
            if masters:
                torch._foreach_copy_(own, masters)

        return Made(own, optimizer, step, masters)

    loops = kwargs.get("foreach") is False
    return Contender(
        name, make, exact=loops and case.beside != "clipped", compiled=compiled,
        profiled=not loops or len(case.shapes) <= MOST_PROFILED,
    )  # fmt: skip


def ours(
    name: str, backend: str, case: Case, machine: Machine, *, graph: bool = False
) -> Contender:
    """Describe FusedDecaySGD on a backend, with lrfused's StepLR."""

    def make() -> Made:
        own = draw(case, machine)
        optimizer = FusedDecaySGD(
            own, **HYPER, schedule=StepLR(STEP_SIZE, GAMMA), backend=backend,
            capturable=graph, **case.arguments,
        )  # fmt: skip
        step: Callable[[], object] = optimizer.step
        if graph:
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                optimizer.step()
            step = captured.replay
        return Made(own, optimizer, step)

    # On the CPU torch's own bf16 is nobody's oracle.
    exact = machine.gpu or case.dtype == torch.float32 or bool(case.beside)
    one_table = not graph or len(case.shapes) <= INLINED
    launches = 1 + (case.beside == "clipped") if backend == "cuda" and one_table else None
    return Contender(name, make, exact=exact, launches=launches, timed=backend != "reference")
