"""Count the bytes that steps with clipping or masters move and keep, then time them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

import lrfused

from . import report, shapes
from .rounds import YARDSTICK
from .timing import Timing, interleave

HYPER: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
MAX_NORM = 1.0
STEPS = 3  # of the validation


@dataclass
class Contender:
    """Hold parameters with gradients, a step, and the streams of each of its passes."""

    name: str
    parameters: list[Tensor]
    step: Callable[[], object]
    # For each pass: the tensors that it reads, and those that it writes.
    passes: Callable[[], dict[str, tuple[Iterable[Tensor], Iterable[Tensor]]]] = field(repr=False)
    kept: Callable[[], Iterable[Tensor]] = field(repr=False)

    @property
    def elements(self) -> int:
        """Count the elements of the parameters."""
        return sum(p.numel() for p in self.parameters)

    def traffic(self) -> dict[str, float]:
        """Count the bytes per parameter that each pass reads and writes."""
        return {
            name: (_size(reads) + _size(writes)) / self.elements
            for name, (reads, writes) in self.passes().items()
        }


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.itemsize for t in tensors)


def _grads(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


def _states(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for own in optimizer.state.values() for value in own.values()]


def _parameters(case: Sequence[shapes.Shape], dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    made = [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in case]
    for p in made:
        p.grad = torch.empty_like(p, requires_grad=False)
    return made


def _torchs(parameters: list[Tensor]) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, foreach=False, fused=False, **HYPER)


def clipped_by_hand(case: Sequence[shapes.Shape]) -> Contender:
    """Build a contender that clips with `clip_grad_norm_`, in passes of its own."""
    params = _parameters(case, torch.float32)
    optimizer = _torchs(params)

    def step() -> None:
        clip_grad_norm_(params, MAX_NORM)
        optimizer.step()

    def passes() -> Any:
        grads, momenta = _grads(params), _states(optimizer)
        return {
            "norm": (grads, []),
            "multiply": (grads, grads),
            "update": ([*grads, *params, *momenta], [*params, *momenta]),
        }

    return Contender(
        "clip_grad_norm_, then step", params, step, passes, lambda: [*params, *_states(optimizer)]
    )


def clipped_inside(case: Sequence[shapes.Shape], backend: str = "auto") -> Contender:
    """Build a contender that clips inside the step."""
    params = _parameters(case, torch.float32)
    optimizer = lrfused.FusedDecaySGD(params, max_grad_norm=MAX_NORM, backend=backend, **HYPER)

    def passes() -> Any:
        grads, momenta = _grads(params), _states(optimizer)
        return {
            "norm": (grads, []),
            "update": ([*grads, *params, *momenta], [*params, *momenta]),
        }

    return Contender(
        "max_grad_norm", params, optimizer.step, passes, lambda: [*params, *_states(optimizer)]
    )


def masters_by_hand(case: Sequence[shapes.Shape]) -> Contender:
    """Build a contender with masters by hand: widen gradients, step in fp32, round parameters."""
    params = _parameters(case, torch.bfloat16)
    masters = [p.detach().float().requires_grad_() for p in params]
    for m in masters:
        m.grad = torch.empty_like(m, requires_grad=False)
    optimizer = _torchs(masters)

    @torch.no_grad()
    def step() -> None:
        torch._foreach_copy_(_grads(masters), _grads(params))
        optimizer.step()
        torch._foreach_copy_(params, masters)

    def passes() -> Any:
        grads, momenta = _grads(masters), _states(optimizer)
        return {
            "widen gradients": (_grads(params), grads),
            "update": ([*grads, *masters, *momenta], [*masters, *momenta]),
            "round parameters": (masters, params),
        }

    return Contender(
        "fp32 masters by hand", params, step, passes,
        lambda: [*params, *masters, *_grads(masters), *_states(optimizer)],
    )  # fmt: skip


def masters_inside(case: Sequence[shapes.Shape], kind: bool | str) -> Contender:
    """Build a contender with masters inside the step: whole, their remainders, or none."""
    params = _parameters(case, torch.bfloat16)
    optimizer = lrfused.FusedDecaySGD(params, master_weights=kind, **HYPER)

    def passes() -> Any:
        own = _states(optimizer)
        read = own if kind is True else [*own, *params]
        return {"update": ([*_grads(params), *read], [*own, *params])}

    return Contender(
        f"master_weights={kind!r}", params, optimizer.step, passes,
        lambda: [*params, *_states(optimizer)],
    )  # fmt: skip


def _advance(contenders: Iterable[Contender], steps: int = STEPS) -> None:
    """Step all contenders on the same gradients."""
    generator = torch.Generator().manual_seed(2)
    everyone = list(contenders)
    for _ in range(steps):
        for several in zip(*(c.parameters for c in everyone), strict=True):
            grad = torch.randn(several[0].shape, generator=generator)
            for p in several:
                assert p.grad is not None
                p.grad.copy_(grad)
        for contender in everyone:
            contender.step()


def _assert_same(a: Contender, b: Contender) -> None:
    for p, q in zip(a.parameters, b.parameters, strict=True):
        if not torch.equal(p, q):
            raise AssertionError(f"{a.name} is not {b.name} to the bit")


def clipping(case: Sequence[shapes.Shape]) -> list[Contender]:
    """Build the contenders that clip; those of lrfused equal the reference to the bit."""
    ours, reference, theirs = (
        clipped_inside(case), clipped_inside(case, "reference"), clipped_by_hand(case)
    )  # fmt: skip
    _advance([ours, reference, theirs])
    _assert_same(ours, reference)
    for p, q in zip(ours.parameters, theirs.parameters, strict=True):
        torch.testing.assert_close(p, q)  # the order of torch's norm is its own
    return [theirs, ours]


def masters(case: Sequence[shapes.Shape]) -> list[Contender]:
    """Build the contenders with masters; whole masters equal those by hand to the bit."""
    theirs, ours = masters_by_hand(case), masters_inside(case, True)
    others = [masters_inside(case, "remainder"), masters_inside(case, False)]
    _advance([theirs, ours, *others])
    _assert_same(ours, theirs)
    return [theirs, ours, *others]


def measure(case: Sequence[shapes.Shape], seconds: float) -> dict[str, Any]:
    """Count and time every contender, with an in-place pass beside them."""
    found: dict[str, Any] = {}
    for title, build in (("clipping, fp32", clipping), ("master weights, bf16", masters)):
        field = build(case)
        yardstick = torch.ones(shapes.elements(list(case)))
        calls: dict[str, Callable[[], object]] = {c.name: c.step for c in field}
        calls[YARDSTICK] = partial(yardstick.mul_, 0.9999999)
        samples = interleave(calls, seconds=seconds)
        timings = {name: Timing.of(values) for name, values in samples.items()}
        found[title] = {
            "contenders": {
                c.name: {
                    "bytes_per_parameter": c.traffic(),
                    "bytes_per_parameter_together": sum(c.traffic().values()),
                    "bytes_per_parameter_kept": _size(c.kept()) / c.elements,
                    "timing_ms": asdict(timings[c.name]),
                }
                for c in field
            },
            "in_place_ms": asdict(timings[YARDSTICK]),
            "elements": yardstick.numel(),
        }
    return found


def run(seconds: float, path: Path, checkout: Path) -> None:
    """Measure over ResNet-50's shapes; print the counts, write everything to `path`."""
    cases = measure(shapes.resnet50(), seconds)
    for title, case in cases.items():
        print(title)
        for name, row in case["contenders"].items():
            together, kept = row["bytes_per_parameter_together"], row["bytes_per_parameter_kept"]
            print(
                f"  {name:<28} {together:4.0f} B moved, {kept:3.0f} B kept for each parameter, "
                f"median {row['timing_ms']['median']:.2f} ms"
            )
    content = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": report.device(),
        "versions": report.versions(),
        "commit": report.commit(checkout),
        "cases": cases,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {path}")
