"""Time one step on a GPU, schedule included, beside torch's: device, host, launches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from lrfused import FusedDecaySGD, StepLR, backends
from lrfused.bench import shapes

HYPER = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
STEP_SIZE, GAMMA = 3, 0.99
VALIDATION_STEPS = 7
FLUSHED = 256 * 2**20  # bytes written between two steps, so that the next finds a cold L2


MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class Case:
    """Name a set of tensors to step over, and what is done beside the update.

    "clipped": gradients are, to MAX_GRAD_NORM. "masters": parameters have fp32 ones.
    """

    name: str
    shapes: list[tuple[int, ...]]
    dtype: torch.dtype
    beside: str = ""

    @property
    def bytes(self) -> int:
        """Count the bytes that must move: read p, g, m; write p, m.

        Clipping reads g once more. With masters p is only written, and the master and m are fp32.
        """
        size, wide = self.dtype.itemsize, torch.float32.itemsize
        each = {"": 5 * size, "clipped": 6 * size, "masters": 2 * size + 4 * wide}[self.beside]
        return each * shapes.elements(self.shapes)

    @property
    def arguments(self) -> dict[str, Any]:
        """Return what FusedDecaySGD is told of it."""
        return {
            "": {},
            "clipped": {"max_grad_norm": MAX_GRAD_NORM},
            "masters": {"master_weights": True},
        }[self.beside]


def cases(shrink: int = 1) -> list[Case]:
    """List what is stepped over; `shrink` divides sizes, for a rehearsal."""
    sets = {
        "ResNet-50": shapes.resnet50(),
        "ViT-L/16": shapes.vit_l16(),
        "one of 100 M": shapes.one_large(100_000_000),
        "10,000 of 64": shapes.many_small(10_000 // shrink, 64),
    }
    if shrink > 1:
        sets = {
            name: [(1 + shapes.elements([s]) // shrink,) for s in of] for name, of in sets.items()
        }
    plain = [
        Case(f"{name}, {str(dtype).removeprefix('torch.')}", of, dtype)
        for name, of in sets.items()
        for dtype in (torch.float32, torch.bfloat16)
    ]
    more = [
        replace(case, name=f"{case.name}, {beside}", beside=beside)
        for case in plain
        for beside in ("clipped", "masters")
        if "64" not in case.name and (beside == "clipped" or case.dtype == torch.bfloat16)
    ]
    return plain + more


@dataclass
class Contender:
    """Hold one optimizer with its own parameters; `step` makes its schedule's step too."""

    name: str
    params: list[torch.Tensor]
    optimizer: torch.optim.Optimizer
    step: Callable[[], object]
    exact: bool  # whether it promises the first one's bits
    timed: bool = True
    masters: list[torch.Tensor] | None = None  # what the optimizer steps over, if not the params


@dataclass
class Result:
    """Hold medians, in microseconds."""

    kernels: float  # of device time, by the profiler
    total: float  # from the call until the device is done
    host: float  # of the call alone
    launches: int
    samples: dict[str, list[float]] = field(default_factory=dict)


class Machine:
    """Draw, wait and measure on a GPU, or on the CPU in a rehearsal."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.gpu = device.type == "cuda"
        self._flushed = torch.empty(FLUSHED if self.gpu else 64, dtype=torch.uint8, device=device)

    def wait(self) -> None:
        """Wait until the device is done."""
        if self.gpu:
            torch.cuda.synchronize()

    def flush(self) -> None:
        """Leave nothing of the last step in the L2."""
        self._flushed.zero_()

    def copy_bandwidth(self, rounds: int) -> float:
        """Measure bytes read and written in a second by a copy of 512 MiB."""
        numel = 2**27 if self.gpu else 2**16
        source = torch.rand(numel, device=self.device)
        to = torch.empty_like(source)
        to.copy_(source)
        return 2 * 4 * numel / statistics.median(self.seconds(lambda: to.copy_(source), rounds))

    def seconds(self, call: Callable[[], object], rounds: int) -> list[float]:
        """Time a call on the device, L2-cold, by events."""
        samples = []
        for _ in range(rounds):
            self.flush()
            if self.gpu:
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                call()
                end.record()
                end.synchronize()
                samples.append(begin.elapsed_time(end) / 1e3)
            else:
                now = time.perf_counter()
                call()
                samples.append(time.perf_counter() - now)
        return samples

    def profile(self, call: Callable[[], object], rounds: int) -> tuple[float, int]:
        """Return the device's time in kernels and copies of a call, in us, and their number."""
        from torch.profiler import ProfilerActivity, profile

        if not self.gpu:
            return float("nan"), 0
        self.wait()
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
            for _ in range(rounds):
                self.flush()
                call()
            self.wait()
        events = [
            e
            for e in found.events()
            if e.device_type == torch.autograd.DeviceType.CUDA and "Memset" not in e.name
        ]
        busy = sum(e.time_range.elapsed_us() for e in events)
        return busy / rounds, round(len(events) / rounds)


def contenders(case: Case, machine: Machine) -> Iterator[Callable[[], Contender]]:
    """Yield what makes each contender, one at a time: a GPU may not hold all of them."""

    def params() -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        made = []
        for shape in case.shapes:
            values = torch.randn(shape, generator=generator)
            p = values.to(machine.device, case.dtype).requires_grad_()
            p.grad = torch.empty_like(p, requires_grad=False)
            made.append(p)
        return made

    def torchs(name: str, tensor_lr: bool = False, compiled: bool = False, **kwargs: bool):
        def make() -> Contender:
            own = params()
            hyper = dict(HYPER)
            if tensor_lr:
                hyper["lr"] = torch.tensor(HYPER["lr"], device=machine.device)
            masters = [p.detach().float() for p in own] if case.beside == "masters" else None
            optimizer = torch.optim.SGD(masters or own, **hyper, **kwargs)
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, STEP_SIZE, GAMMA)
            inner = torch.compile(optimizer.step) if compiled else optimizer.step

            @torch.no_grad()
            def step() -> None:
                if case.beside == "clipped":
                    torch.nn.utils.clip_grad_norm_(own, MAX_GRAD_NORM)
                for p, master in zip(own, masters or (), strict=False):
                    master.grad = p.grad.float()
                inner()
                scheduler.step()
                if masters is not None:
                    torch._foreach_copy_(own, masters)

            exact = "for-loop" in name and case.beside != "clipped"
            return Contender(name, own, optimizer, step, exact, masters=masters)

        return make

    def ours(name: str, backend: str, graph: bool = False):
        def make() -> Contender:
            own = params()
            optimizer = FusedDecaySGD(
                own, **HYPER, schedule=StepLR(STEP_SIZE, GAMMA), backend=backend,
                capturable=graph, **case.arguments,
            )  # fmt: skip
            step = optimizer.step
            if graph:
                captured = torch.cuda.CUDAGraph()
                with torch.cuda.graph(captured):
                    optimizer.step()
                step = captured.replay
            return Contender(name, own, optimizer, step, True, timed=backend != "reference")

        return make

    if case.beside == "clipped":  # whose bits are not clip_grad_norm_'s
        yield ours("lrfused, reference", "reference")
    yield torchs("torch for-loop", foreach=False, fused=False)
    usable = backends.available()
    if usable["cuda"] is None:
        yield ours("lrfused", "cuda")
        if machine.gpu:
            yield ours("lrfused, graph", "cuda", graph=True)
    if usable["triton"] is None and machine.gpu:
        yield ours("lrfused, Triton", "triton")
    yield torchs("torch foreach", foreach=True)
    if machine.gpu or case.dtype == torch.float32 or case.beside == "masters":
        yield torchs("torch fused", fused=True)
        if not case.beside:
            yield torchs("torch fused, tensor lr", tensor_lr=True, fused=True)
    if not case.beside and machine.gpu and len(case.shapes) <= 400:
        yield torchs("torch.compile, tensor lr", tensor_lr=True, compiled=True, foreach=True)


def run(contender: Contender, steps: int) -> list[torch.Tensor]:
    """Step on the same gradients as everyone; return what is compared."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        for p in contender.params:
            p.grad.copy_(torch.randn(p.shape, generator=generator))
        contender.step()
    stepped = contender.masters or contender.params
    buffers = [contender.optimizer.state[p]["momentum_buffer"] for p in stepped]
    return [t.detach().to("cpu", copy=True) for t in (*contender.params, *buffers)]


def differing(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> int:
    """Count the values that differ in a bit."""
    integers = {4: torch.int32, 2: torch.int16}
    return sum(
        int((a.view(integers[a.itemsize]) != b.view(integers[b.itemsize])).sum())
        for a, b in zip(ours, theirs, strict=True)
    )


def measure(contender: Contender, machine: Machine, rounds: int) -> Result:
    """Time a contender that was validated."""
    for _ in range(5):
        contender.step()
    machine.wait()
    total = [1e6 * s for s in machine.seconds(contender.step, rounds)]
    host = []
    for _ in range(rounds):
        machine.wait()
        begin = time.perf_counter()
        contender.step()
        host.append(1e6 * (time.perf_counter() - begin))
    machine.wait()
    kernels, launches = machine.profile(contender.step, min(rounds, 10))
    return Result(
        kernels, statistics.median(total), statistics.median(host), launches,
        {"total": total, "host": host},
    )  # fmt: skip
