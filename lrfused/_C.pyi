# What csrc/bindings.cpp binds.
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

class Program:
    left: int  # schedule steps still compiled

    def __init__(
        self,
        moved: Sequence[
            Tensor
        ],  # 7: cells, epochs, used, history, recorded, plateau_states, observed
        compiled: Sequence[Tensor],  # 5: segments, constants, tables, plateau_cells, plateaus
        shown: Sequence[list[Any]],  # 6: groups, rates, momenta, templates, places, kept
        steps: int,
    ) -> None: ...
    def use(self) -> None: ...
    def note_plateaus(self, metrics: int) -> None: ...
    def keep(self) -> None: ...
    def advance(self, groups: list[dict[str, Any]] | None = None) -> None: ...
    def feed(self, metric: float) -> bool: ...
    def cells(self) -> list[float]: ...
    def show(self, groups: list[dict[str, Any]]) -> None: ...
    def shows(self, groups: list[dict[str, Any]]) -> bool: ...

class Master:
    none: Master
    whole: Master
    remainder: Master

class Odd(Protocol):
    def square_sums(self) -> list[float]: ...
    def __call__(self, clip: float) -> object: ...

class Gathered:
    """Plain tensors that a step reads and writes by address, held for as long as this lives."""

    @property
    def valid(self) -> bool: ...  # whether all groups' numbers are numbers in float32's range
    @property
    def firsts(self) -> int: ...  # slots that lack a momentum buffer or a master yet
    @property
    def places(self) -> int: ...  # all parameters, with a gradient or without
    @property
    def odd(self) -> list[tuple[int, Tensor]]: ...  # (group, param); all of them if not valid
    @property
    def params(self) -> list[Tensor]: ...  # of the slots
    # int64 [S, 12] on the CPU, a row for each parameter that has a gradient and is not odd:
    #   0 param, 1 grad, 2 buffer, 3 master   addresses, multiples of an element's size; 0 if none
    #   4 numel                               elements of each of them, in one memory order
    #   5 group                               index of the parameter's group
    #   6 mode                                0 no momentum, 1 first step, 2 a later one
    #   7 place                               among all parameters, with a gradient or without
    #   8 dtype, 9 grad_dtype                 0 float32, 1 float64, 2 bfloat16, 3 float16
    #   10 master_form                        0 no master, 1 the master, 2 its remainder
    #   11 device                             index of the device; 0 on the CPU
    @property
    def slots(self) -> Tensor: ...
    def bump_versions(self) -> None: ...  # of `params` and their buffers, once they are written

# The device type is one whose plain tensors have one dispatch key set: cpu, cuda, xpu.
def gather(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    cells: list[float],
    master_form: Master,
    device_type: str,
) -> Gathered: ...
def has_observers() -> bool: ...

# This process is a fork of one that has imported lrfused, but not loaded the extension.
def note_fork() -> None: ...
def step(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    program: Program,
    inv_scale: float,
    max_norm: float | None,
    skip: bool,
    master_form: Master,
    advance: bool,
    use_fma: bool,
    odd: Callable[[list[tuple[int, Tensor]]], Odd],
) -> tuple[bool, bool, float]: ...

# Functions of an optimizer: csrc/direct.h.
_Direct = tuple[Callable[[Any], bool], Callable[[Any], bool], Callable[[Any, Any], bool]]

def direct(
    program: Program,
    read: list[tuple[int, str, Any]],
    advance: bool,
    by_hand: bool,
    may_warn: bool,
    torchs: dict[str, Any],
    fed_before: int | None,
    master_form: Master,
    use_fma: bool,
    max_norm: float | None,
    scaling: Any,
) -> _Direct: ...
def direct_on_gpu(
    program: Program,
    read: list[tuple[int, str, Any]],
    advance: bool,
    by_hand: bool,
    may_warn: bool,
    torchs: dict[str, Any],
    master_form: Master,
    device: DeviceState,
    images: Images,
    ready: Callable[[], int | None],
) -> _Direct: ...
def zero_grad(groups: Any, set_to_none: Any, /) -> bool: ...

class Pace:  # for tests: csrc/cpu/pace.h
    def choose(self, cost: int, threads: int) -> tuple[bool, bool]: ...
    def note(self, cost: int, run: tuple[bool, bool], nanoseconds: int) -> None: ...

class DeviceState:
    def __init__(self, index: int, driver: int) -> None: ...
    def bind(
        self, tensors: Sequence[Tensor], momentum_cells: Sequence[int], length: int
    ) -> None: ...
    def reserve(self, numels: Sequence[int]) -> None: ...
    def advance(self, stream: int) -> None: ...
    def observe(self, metric: Tensor, stream: int) -> None: ...

class DeviceStep:
    def __init__(
        self,
        groups: list[dict[str, Any]],
        state: dict[Tensor, dict[str, Any]],
        cells: list[float],
        master_form: Master,
    ) -> None: ...
    @property
    def valid(self) -> bool: ...
    @property
    def firsts(self) -> int: ...
    @property
    def devices(self) -> list[int]: ...
    @property
    def odd(self) -> list[tuple[int, Tensor]]: ...
    def scale(
        self, inv_scale: float, grad_scale: Tensor | None, found_inf: Tensor | None
    ) -> None: ...
    def norm(
        self, device: DeviceState, stream: int, max_norm: float, recording: bool
    ) -> Tensor: ...
    def create(self, state: dict[Tensor, dict[str, Any]]) -> None: ...
    def launch(
        self,
        device: DeviceState,
        stream: int,
        advances: bool,
        always: bool,
        finite: bool,
        recording: bool,
    ) -> None: ...
    def finish(self, state: dict[Tensor, dict[str, Any]]) -> None: ...

class Images:
    def __init__(self) -> None: ...
    def watch(self, tensors: Sequence[Tensor], anew: bool) -> None: ...
    def unchanged(self) -> bool: ...
    def changed(self) -> list[int]: ...
    def note(self, i: int) -> None: ...
    def note_moved(self) -> None: ...

def step_at_once(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    program: Program,
    device: DeviceState,
    images: Images,
    master_form: Master,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    max_norm: float | None,
    stream: int,
    advance: bool,
    settled: bool,
) -> tuple[bool, Tensor | None]: ...

class Tape:  # where there is no GPU
    def __len__(self) -> int: ...
    def replay(self) -> None: ...

def record_to(tape: Tape | None) -> None: ...
def on_gpu() -> bool: ...
def driver_version() -> int: ...
def architectures() -> str: ...  # where there are kernels for a GPU
def describe(device: int) -> tuple[str, int, int]: ...  # likewise
def touches_of(
    addresses: Sequence[int], numel: int, sizes: Sequence[int]
) -> tuple[list[list[int]], list[list[int]]]: ...
def units_of(numels: list[int]) -> list[list[int]]: ...
