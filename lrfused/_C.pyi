# What csrc/bindings.cpp binds.
from collections.abc import Callable
from typing import Any

from torch import Tensor

class Program:
    def __init__(
        self,
        rates: Tensor,
        epochs: Tensor,
        segments: Tensor,
        constants: Tensor,
        tables: Tensor,
        plateau_groups: Tensor,
        plateaus: Tensor,
        plateau_states: Tensor,
    ) -> None: ...
    def advance(self) -> None: ...
    def observe(self, metric: float) -> None: ...
    def rates(self) -> list[float]: ...

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
