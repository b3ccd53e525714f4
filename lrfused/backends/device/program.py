"""The schedules of an optimizer, run by devices and by the host.

Each runs the same program on its own copy of the rates, so that the host has the rate without
asking. What the host alone changes (a rate that the user wrote) is uploaded before the next step.
What a device alone decides comes back:

- A metric that is on the device is observed there at once, and copied to pinned memory; when it
  has landed, the host observes it too, and then makes the schedule steps made in the meantime.
- A captured step is replayed without the host, which from then on reads the device's state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch import device as Device

from ...program import ProgramTables
from ...rates.moved import Moved
from ...rates.program import Announce, Groups
from ...rates.shown import Shown
from . import transfer
from .schedule_copy import ScheduleCopy
from .transfer import Flight

try:
    from ..compiled import Program as HostProgram
except ImportError:
    from ..reference import Program as HostProgram  # type: ignore[assignment]


_USED = 2  # the index of the rates used among the numbers that move


class Program(ABC):
    """Run a compiled program of schedules on the host and on every device with parameters.

    A backend adds its `ScheduleCopy`, and on which devices it runs.
    """

    on_device: ClassVar[bool] = True
    make_copy: type[ScheduleCopy]
    observes_replays = False  # whether a metric may be fed in a captured step

    @staticmethod
    @abstractmethod
    def runs_on(device: Device) -> bool:
        """Return whether kernels can be launched on a device."""

    def __init__(
        self,
        moved: Moved,
        packed: ProgramTables,
        shown: Shown,
        steps: int,
        *,
        previous: Any = None,
        may_capture: bool = True,
    ) -> None:
        self._host_program = HostProgram(moved, packed, shown, steps)
        self._moved, self._shown = moved, shown
        self._later = 0  # schedule steps that the host makes when a metric has landed
        # By group, the cell of a momentum that a schedule cycles.
        self.momentum_cells = shown.momentum_cells
        self._moving = {
            "rates": moved.cells,  # and momenta
            "epochs": moved.epochs,
            "used": moved.used,
            "recorded": moved.recorded,
            "plateau states": moved.plateau_states,
        }
        if self.observes_replays:
            self._moving["observed"] = moved.observed
        self._order = torch.argsort(packed.plateau_cells, stable=True)
        order = torch.argsort(packed.segments[:, 0], stable=True)
        self._fixed = {
            "segments": packed.segments[order],
            "constants": packed.constants[order],
            "tables": packed.tables,
            "first segments": _first(packed.segments[:, 0], len(moved.cells)),
            "plateaus": packed.plateaus[self._order],
            "first plateaus": _first(packed.plateau_cells, len(moved.cells)),
        }
        self.groups, self.length = len(moved.epochs), len(moved.history)
        self._layout = (self.groups, self._order.tolist())  # of the numbers on a device
        self._copies: dict[Device, ScheduleCopy] = {}
        self._pending: deque[tuple[Flight, Announce | None] | Callable[[], None]] = deque()
        self.captured = False  # devices may advance without the host
        self._may_capture = may_capture
        self.is_shown = True
        if isinstance(previous, type(self)):
            self._copies, self.captured = previous._copies, previous.captured
            self.is_shown = previous.is_shown
            if self.captured and not self.recording:
                self.push()

    def copy_on(self, device: Device, recording: bool = False) -> ScheduleCopy:
        """Return a device's copy of the schedule, brought up to date."""
        if recording and not self._may_capture:
            raise RuntimeError(
                "this step cannot be captured: its schedule is compiled for a limited number of "
                "steps; construct the optimizer with capturable=True"
            )
        copy = self._copies.get(device)
        if copy is None:
            self.settle()
            copy = self.make_copy(device)
        if copy.program is not self:
            self._enter(copy, recording)
            self._copies[device] = copy
        if not copy.images.unchanged():
            names = list(self._moving)
            for i in copy.images.changed():
                copy.upload(names[i], self._as_there(names[i]), recording)
                copy.images.note(i)
        return copy

    def _enter(self, copy: ScheduleCopy, recording: bool) -> None:
        """Let a device run this program; it keeps its numbers if their layout stays."""
        for name, host in self._fixed.items():
            copy.upload(name, host, recording)
        copy.enter(self, list(self._moving.values()), self._layout)
        # Of the history a device has what it wrote itself: the host lacks nothing else.
        copy.reserve("history", self._moved.history.numel(), torch.float64)

    def _as_there(self, name: str) -> Tensor:
        """Return the host's numbers of a name in the form that a device has them."""
        host = self._moving[name]
        if name == "recorded":
            return host.expand(self.groups)  # counted for each group there
        return host[self._order] if name == "plateau states" else host

    def _agree(self) -> None:
        """Note that the devices have made the move that the host has made."""
        for copy in self._copies.values():
            copy.images.note_moved()

    def runs_on_all(self, devices: list[Device]) -> bool:
        """Return whether a step on these devices leaves out none that is ahead of the host."""
        return not self.in_flight or all(device in devices for device in self._copies)

    def use(self, devices: Sequence[Device] = ()) -> None:
        """Note the rates of the step that is now made; these devices have noted them."""
        if self.recording:
            self.captured = True
            return
        if self._pending:
            self._pending.append(self._host_program.use)
            return
        self._host_program.use()
        for device in devices:
            self._copies[device].images.note(_USED)

    def advance(self, groups: Groups, advanced: Sequence[Device] = ()) -> None:
        """Make one schedule step of every group, and show its rates.

        advanced: the devices that have made it already.
        """
        recording = self.recording
        for device in self._copies:
            if device in advanced:
                continue
            self.copy_on(device, recording).advance()
        if recording:
            self.captured = True
            return
        if self._pending:
            self._advance_later()
        else:
            self._host_program.advance()
            self._agree()
        self.show(groups)

    @property
    def left(self) -> int:
        """Return how many schedule steps can still be made; negative after more were replayed."""
        left: int = self._host_program.left
        return left - self._later

    def _advance_later(self) -> None:
        """Let the host make a schedule step when a metric has landed."""

        def advance() -> None:
            self._later -= 1
            self._host_program.advance()

        self._later += 1
        self._pending.append(advance)

    def observe(self, groups: Groups, metric: float | Tensor, announce: Announce | None) -> None:
        """Feed every plateau one metric; `announce` and the groups have the result when it is here.

        A tensor is one that `takes` accepts. Before a number the host has settled.
        """
        if isinstance(metric, Tensor):
            self._launch_observe(metric, announce)
        else:
            self._host_program.observe(groups, metric, announce)
            if self.captured:
                self.push()  # for replays
        self.show(groups)

    def takes(self, metric: Any) -> bool:
        """Return whether a metric is a number on a device like those that run this program."""
        return (
            type(metric) in (Tensor, torch.nn.Parameter)
            and metric.numel() == 1
            and not metric.is_complex()
            and self.runs_on(metric.device)
            and bool(self._copies)
        )

    def _launch_observe(self, metric: Tensor, announce: Announce | None) -> None:
        recording = self.recording
        if recording and not self.observes_replays:
            raise RuntimeError(
                "scheduler.step(metrics) cannot be captured: call it between replays"
            )
        number = metric.detach().to(torch.float64)
        for device in self._copies:
            there = number if number.device == device else number.to(device, non_blocking=True)
            copy = self.copy_on(device, recording)
            copy.observe(there)
            if recording:
                copy.graphs.append(there)
        if recording:
            self.captured = True
            return
        self._pending.append((Flight(number), announce))
        self._land(wait=False)

    def cells(self) -> list[float]:
        """Return each group's rate and momentum, as far as the host has them."""
        self._drain(wait=False)
        return self._known()

    def _known(self) -> list[float]:
        cells: list[float] = self._host_program.cells()
        return cells

    def show(self, groups: Groups) -> None:
        """Put each group's rate, cycled momentum and place into its dict and into `Shown`."""
        self._drain(wait=False)
        self._host_program.show(groups)
        self.is_shown = True

    def shows(self, groups: Groups) -> bool:
        """Return whether these are the known groups, each with what was shown last."""
        return bool(self._host_program.shows(groups))

    def settle(self) -> bool:
        """Wait until the host has caught up; return whether replays may have made steps."""
        if self.recording:
            return False
        self._drain(wait=True)
        if not self.captured:
            return False
        before = int(self._moved.epochs[0])
        self._fetch(next(iter(self._copies.values())))
        self._host_program.left -= int(self._moved.epochs[0]) - before
        self._host_program.note_states()
        self.is_shown = False
        self.push()
        return True

    def _fetch(self, copy: ScheduleCopy) -> None:
        """Take over what replays have changed, and not what the host has changed since."""
        history, recorded = self._moved.history, self._moved.recorded
        begin, length = int(recorded), len(history)
        changed = copy.images.changed()
        for i, (name, host) in enumerate(self._moving.items()):
            if i in changed:
                continue
            there = copy[name][: host.numel()].to("cpu").reshape(host.shape)
            host[self._order if name == "plateau states" else slice(None)] = there
            for each in self._copies.values():
                each.images.note(i)
        end = int(recorded)
        if end > begin:
            rows = torch.arange(max(begin, end - length), end) % length
            there = copy["history"][: history.numel()].to("cpu")
            history[rows] = there.reshape(history.shape)[rows]

    @property
    def in_flight(self) -> bool:
        """Return whether a device may be ahead of the host."""
        return self.captured or bool(self._pending)

    def push(self) -> None:
        """Bring every device's copy up to date."""
        for device in self._copies:
            self.copy_on(device)

    @property
    def recording(self) -> bool:
        """Return whether a graph is being captured."""
        return any(map(transfer.capturing, self._copies))

    def _drain(self, wait: bool) -> None:
        if self._pending and not self.recording:
            self._land(wait)

    def _land(self, wait: bool) -> None:
        """Make the moves for which metrics have landed; if `wait`, those of all."""
        moved = False
        while self._pending:
            first = self._pending[0]
            if not isinstance(first, tuple):
                first()
            else:
                flight, announce = first
                if not wait and not flight.landed():
                    break
                before = self._known() if announce else []
                self._host_program.feed(flight.number())
                if announce:
                    announce(before, self._known())
            self._pending.popleft()
            moved = True
        if moved:
            self._host_program.note_states()
            self._agree()
            self.is_shown = False


def _first(cells: Tensor, count: int) -> Tensor:
    """Return where each cell's rows begin, in tables whose rows are in the order of the cells."""
    first = torch.zeros(count + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(cells, minlength=count), 0, out=first[1:])
    return first
