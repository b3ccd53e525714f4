# What csrc/bindings.cpp binds.
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

class Program:
    def __init__(
        self,
        cells: Tensor,
        epochs: Tensor,
        used: Tensor,
        history: Tensor,
        recorded: Tensor,
        plateau_states: Tensor,
        segments: Tensor,
        constants: Tensor,
        tables: Tensor,
        plateau_cells: Tensor,
        plateaus: Tensor,
    ) -> None: ...
    def use(self) -> None: ...
    def advance(self) -> None: ...
    def observe(self, metric: float) -> bool: ...
    def cells(self) -> list[float]: ...
    def show(self, groups: Sequence[dict[str, Any]], shown: list[float]) -> None: ...

class Master:
    none: Master
    whole: Master
    remainder: Master

class Odd(Protocol):
    def square_sums(self) -> list[float]: ...
    def __call__(self, clip: float) -> object: ...

def has_observers() -> bool: ...
def step(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    program: Program,
    inv_scale: float,
    max_norm: float | None,
    skip: bool,
    kept: Master,
    advance: bool,
    fused: bool,
    shown: list[float] | None,
    odd: Callable[[list[tuple[int, Tensor]]], Odd],
) -> tuple[bool, bool, float]: ...

class Device:
    def __init__(self, index: int) -> None: ...
    def bind(self, tensors: Sequence[Tensor], groups: int, length: int) -> None: ...
    def advance(self, stream: int) -> None: ...
    def observe(self, metric: Tensor, stream: int) -> None: ...

class DeviceStep:
    def __init__(
        self,
        groups: list[dict[str, Any]],
        state: dict[Tensor, dict[str, Any]],
        cells: list[float],
    ) -> None: ...
    @property
    def valid(self) -> bool: ...
    @property
    def firsts(self) -> int: ...
    @property
    def devices(self) -> list[int]: ...
    @property
    def odd(self) -> list[tuple[int, Tensor]]: ...
    def create(self) -> None: ...
    def launch(
        self,
        device: Device,
        stream: int,
        momentum_cells: list[int],
        inv_scale: float,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
        advances: bool,
        always: bool,
        recording: bool,
    ) -> None: ...
    def finish(self, state: dict[Tensor, dict[str, Any]]) -> None: ...

class Tape:  # where there is no GPU
    def __len__(self) -> int: ...
    def replay(self) -> None: ...

def record_to(tape: Tape | None) -> None: ...
def on_gpu() -> bool: ...
def touches_of(
    param: int, grad: int, buffer: int, numel: int, itemsize: int
) -> tuple[list[list[int]], list[list[int]]]: ...
def units_of(numels: list[int]) -> list[list[int]]: ...
