"""The interface of a program: what a backend offers to `Rates`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..program import ProgramTables
from .moved import Moved
from .shown import Shown

Groups = list[dict[str, Any]]
# Called with all cells before and after a metric.
Announce = Callable[[list[float], list[float]], None]


class Program(Protocol):
    """Run the compiled schedules of all groups on the tensors of a `Moved`.

    The program alone counts schedule steps (`left`, and the epochs in `Moved`) and metrics, those
    included that a device has not finished. After `advance`, `observe` and `show` the groups show
    the rates as far as the host has them.
    """

    on_device: ClassVar[bool]  # whether kernels run it too, so that a CUDA graph can hold it

    def __init__(
        self,
        moved: Moved,
        packed: ProgramTables,
        shown: Shown,
        steps: int,
        *,
        previous: Program | None = None,
        may_capture: bool = True,
    ) -> None:
        """Take over from `previous`, this optimizer's last program, which is settled.

        packed: the compiled schedules; steps: how many steps they are for. may_capture: whether
        that is enough for a captured step, which is replayed without the host.
        """

    @property
    def left(self) -> int:
        """Return how many schedule steps it can still make; negative after more were replayed."""

    @staticmethod
    def runs_on(device: torch.device) -> bool:
        """Return whether the backend's own kernels take tensors on a device."""

    def cells(self) -> list[float]:
        """Return each group's rate and momentum, as far as the host has them."""

    def use(self) -> None:
        """Note the rates of the optimizer step that is now made."""

    def advance(self, groups: Groups) -> None:
        """Make one schedule step of every group, and show its rates."""

    def observe(self, groups: Groups, metric: float | Tensor, announce: Announce | None) -> None:
        """Feed every plateau one metric, show the rates, and call `announce`.

        A tensor is one that `takes` accepts; with it, all three may happen after the call returns.
        """

    def takes(self, metric: Any) -> bool:
        """Return whether a metric can be observed on its device, without reading it here."""

    def show(self, groups: Groups) -> None:
        """Put each group's rate, cycled momentum and place into its dict and into `Shown`."""

    def shows(self, groups: Groups) -> bool:
        """Return whether these are the known groups, each with what `show` has put there last."""

    # -- of programs on a device; on the host nothing is ever in flight ---------------------------

    @property
    def recording(self) -> bool:
        """Return whether launches are recorded into a CUDA graph instead of run."""

    @property
    def captured(self) -> bool:
        """Return whether replays of a graph may have advanced the device."""

    @property
    def in_flight(self) -> bool:
        """Return whether a device may be ahead of the host."""

    @property
    def is_shown(self) -> bool:
        """Return whether the groups show all that the host has learnt from a device."""

    def settle(self) -> bool:
        """Wait until the host has caught up; return whether replays may have made steps."""

    def push(self) -> None:
        """Bring every device's copy up to date, for replays."""


class HostProgram:
    """The part of `Program` that is trivial where the host runs the program alone."""

    on_device: ClassVar[bool] = False
    recording = captured = in_flight = False
    is_shown = True
    moved: Moved
    shown: Shown

    if TYPE_CHECKING:  # of the class that runs the schedules, in C++ or in Python

        def feed(self, metric: float) -> bool:
            """Feed every plateau one metric; return whether any cut its rate."""

        def cells(self) -> list[float]:
            """Return each group's rate and momentum."""

        def show(self, groups: Groups) -> None:
            """Put what each group shows into its dict and into `Shown`."""

    def note_states(self) -> None:
        """Put the states of the plateaus into the templates of the places."""
        self.shown.note_states(self.moved)

    def observe(self, groups: Groups, metric: float | Tensor, announce: Announce | None) -> None:
        """Feed every plateau one metric, show the rates, and call `announce`."""
        before = self.cells() if announce else []
        self.feed(float(metric))
        self.note_states()
        self.show(groups)
        if announce:
            announce(before, self.cells())

    def takes(self, metric: Any) -> bool:
        """Return False: the host reads every metric."""
        return False

    def settle(self) -> bool:
        """Return False: there is nothing to wait for."""
        return False

    def push(self) -> None:
        """Push nothing: there is no device."""
