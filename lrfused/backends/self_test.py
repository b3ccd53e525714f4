"""The self-test: a few small steps of a backend on a device, beside torch's for-loop there.

One step updates all tensors of all cases, so that there are few launches. No operation is large
enough for torch to wake threads: on a busy machine they wait for each other longer than they work.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import device as Device
from torch.optim.sgd import sgd

from ..arithmetic import bits
from ..arithmetic.gradient_scaling import GradientScaling
from ..arithmetic.sgd import update
from ..rates.rates import Rates
from ..reference import ReferenceDecaySGD
from ..schedules import OneCycleLR, ReduceLROnPlateau, StepLR
from .base import Backend
from .device import transfer
from .device.transfer import Flight

# The metric after each step. The third is the second bad one in a row, for which the rate is cut.
METRICS = (1.0, 2.0, 2.0, 0.5)
SHIFTED = 2  # steps before misaligned parameters and gradients appear; until then all is aligned

_FED = (StepLR(2, 0.7), ReduceLROnPlateau(factor=0.3, patience=1))
_CYCLED = (OneCycleLR(max_lr=0.4, total_steps=9),)  # which cycles the momentum too
_DEFAULTS = {
    "lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False,
    "maximize": False, "schedule": _FED,
}  # fmt: skip
_HYPER = [key for key in _DEFAULTS if key != "schedule"]
# Each is a group, with the kinds of tensors that it has in every dtype.
CASES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "plain": (("aligned",), {}),
    "momentum, OneCycleLR": (("aligned",), {"momentum": 0.9, "schedule": _CYCLED}),
    "momentum, dampening, decay, maximize": (
        ("misaligned",),
        {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01, "maximize": True},
    ),
    "Nesterov, decay": (
        ("large", "misaligned"),
        {"momentum": 0.95, "nesterov": True, "weight_decay": 0.1},
    ),
}

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_ROUND = 64  # elements of which a tensor begins at a multiple, or one after it
# Each has whole vectors and a tail; the large one is more than a CUDA warp takes at once.
_SIZES = {"aligned": 75, "misaligned": 45, "large": 4109}


@dataclass(frozen=True)
class _Place:
    """The place of one parameter in the memory of its dtype."""

    case: str
    kind: str
    dtype: torch.dtype
    begin: int
    numel: int

    def of(self, memory: dict[torch.dtype, Tensor], shift: int = 0) -> Tensor:
        """Return the view at this place, or some elements after it."""
        return memory[self.dtype].narrow(0, self.begin + shift, self.numel)

    def __str__(self) -> str:
        return f"{self.case}, {_word(self.dtype)}, {self.kind} tensor of {self.numel} elements"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _places() -> tuple[list[_Place], int]:
    """Return the places, and how many elements the memory of each dtype has."""
    places, begin = [], 0
    for case, (kinds, _) in CASES.items():
        for kind in kinds:
            begin += _ROUND
            first, numel = begin + (kind == "misaligned"), _SIZES[kind]
            places += [_Place(case, kind, dtype, first, numel) for dtype in _DTYPES]
            begin += numel // _ROUND * _ROUND + _ROUND
    return places, begin + _ROUND


def _numbers(count: int, device: Device) -> dict[torch.dtype, Tensor]:
    """Return numbers over some powers of two, and special values between them, of each dtype."""
    i = torch.arange(count, dtype=torch.float64)
    powers = torch.tensor([2.0**k for k in range(-5, 3)], dtype=torch.float64)
    drawn = 0.618034 * i % 1 - 0.5
    drawn *= powers.repeat(count // 8 + 1)[:count]
    memory = {}
    for dtype in _DTYPES:
        host, limits = drawn.to(dtype), torch.finfo(dtype)
        special = [0.0, -0.0, torch.inf, -torch.inf, torch.nan, limits.max, limits.tiny / 2]
        some = host[::29]
        some.copy_(torch.tensor(special, dtype=dtype).repeat(len(some))[: len(some)])
        memory[dtype] = _uploaded(host, device)
    return memory


def _uploaded(host: Tensor, device: Device) -> Tensor:
    there = torch.empty(host.shape, dtype=host.dtype, device=device)
    transfer.upload(there, host)
    return there


class _Side:
    """The parameters, gradients and state of one side of the comparison."""

    def __init__(
        self,
        places: list[_Place],
        numbers: dict[torch.dtype, Tensor],
    ) -> None:
        self.places = places
        self.memory = {dtype: flat.clone() for dtype, flat in numbers.items()}
        self.gradients = {dtype: flat.clone() for dtype, flat in numbers.items()}
        self.params = [place.of(self.memory) for place in places]
        self.state: dict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.groups: list[dict[str, Any]] = [
            {**_DEFAULTS, **hyper, "params": self._of_case(case)}
            for case, (_, hyper) in CASES.items()
        ]
        # Copies of several tensors of a dtype, joined, beside the names and sizes of each.
        self.kept: list[tuple[dict[str, int], Tensor]] = []

    def _of_case(self, case: str) -> list[Tensor]:
        pairs = zip(self.places, self.params, strict=True)
        return [p for place, p in pairs if place.case == case]

    def give(self, step: int) -> None:
        """Set the parameters' gradients of a step: the numbers at later places."""
        for place, p in zip(self.places, self.params, strict=True):
            if step >= SHIFTED or place.kind != "misaligned":
                p.grad = place.of(self.gradients, 16 + (step if step >= SHIFTED else 0))

    def keep(self, step: int) -> None:
        """Keep copies of the parameters and momentum buffers."""
        now: dict[torch.dtype, dict[str, Tensor]] = {dtype: {} for dtype in _DTYPES}
        for place, p in zip(self.places, self.params, strict=True):
            where = f"{place}, step {step + 1}: "
            now[place.dtype][f"{where}parameter"] = p
            buffer = self.state.get(p, {}).get("momentum_buffer")
            if buffer is not None:
                now[place.dtype][f"{where}momentum"] = buffer
        for named in now.values():
            self._keep(named)

    def keep_memory(self) -> None:
        """Keep the gradients, and the parameters with the memory around them."""
        for dtype in _DTYPES:
            what = {"parameters": self.memory[dtype], "gradients": self.gradients[dtype]}
            self._keep({f"{_word(dtype)}, memory of {key}": flat for key, flat in what.items()})

    def _keep(self, named: dict[str, Tensor]) -> None:
        sizes = {name: tensor.numel() for name, tensor in named.items()}
        self.kept.append((sizes, torch.cat(list(named.values()))))


def run(backend: Backend, device: Device) -> str:
    """Return the first difference between a backend and torch on a device; "" if there is none.

    The oracle of bfloat16 and float16 on a CPU is the reference: see `arithmetic.sgd.update`.
    """
    places, count = _places()
    numbers = _numbers(count, device)
    metrics = _uploaded(torch.tensor(METRICS, dtype=torch.float64), device)
    ours, theirs = _Side(places, numbers), _Side(places, numbers)
    rates = Rates(ours.groups, backend.Program, capturable=False)
    schedulers = ReferenceDecaySGD(theirs.groups).scheduler
    for step, metric in enumerate(METRICS):
        ours.give(step)
        _step(backend, ours, rates, metrics[step] if rates.program.takes(metrics[step]) else metric)
        theirs.give(step)
        _step_as_torch(theirs)
        schedulers.step()
        schedulers.step(metric)
        for case, mine, other in zip(CASES, ours.groups, theirs.groups, strict=True):
            for key in ("lr", "momentum"):
                if not bits.same_rate(mine[key], other[key]):
                    how = bits.describe(mine[key], other[key])
                    return f"{case}, step {step + 1}: {key} {how}"
        ours.keep(step)
        theirs.keep(step)
    ours.keep_memory()
    theirs.keep_memory()
    return _difference(ours, theirs)


def _step(backend: Backend, side: _Side, rates: Rates, metric: float | Tensor) -> None:
    """Make a step of the optimizer and its schedule, and feed a metric."""
    groups = side.groups
    rates.begin(groups, due=True)
    backend.step(groups, side.state, rates.program, True, GradientScaling())
    rates.observe(groups, metric)
    rates.settle(groups)


def _step_as_torch(side: _Side) -> None:
    """Make an optimizer's step by torch's for-loop, without the hooks of its class."""
    for group in side.groups:
        hyper = {key: group[key] for key in _HYPER}
        for p in group["params"]:
            if p.grad is None:
                continue
            kept = [side.state[p].get("momentum_buffer")]
            if p.device.type == "cpu" and p.dtype.itemsize == 2:
                kept = [update(p, p.grad, kept[0], group, group["lr"])]
            else:
                sgd([p], [p.grad], kept, foreach=False, fused=False, **hyper)
            side.state[p]["momentum_buffer"] = kept[0]


def _difference(ours: _Side, theirs: _Side) -> str:
    """Return the first of the kept results that differs, both values and their bits."""
    for (our_sizes, mine), (sizes, other) in zip(ours.kept, theirs.kept, strict=True):
        for name in {**sizes, **our_sizes}:
            size, wanted = our_sizes.get(name, 0), sizes.get(name, 0)
            if size != wanted:
                return f"{name} has {size} elements, should have {wanted}"
        both = Flight(torch.stack([mine, other])).tensor()
        if torch.equal(*bits.integers(both).chunk(2)):
            continue
        parts = (side.split(list(sizes.values())) for side in both)
        for name, a, b in zip(sizes, *parts, strict=True):
            differing, how = bits.difference(a, b)
            if differing:
                return f"{name}{how}"
    return ""
