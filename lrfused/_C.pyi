# What csrc/bindings.cpp binds.
from collections.abc import Callable
from typing import Any

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
    def observe(self, metric: float) -> None: ...
    def cells(self) -> list[float]: ...

def step(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    program: Program,
    inv_scale: float,
    advance: bool,
    fused: bool,
    odd: Callable[[list[tuple[int, Tensor]]], Callable[[], object]],
) -> bool: ...
def units_of(numels: list[int]) -> list[list[int]]: ...
