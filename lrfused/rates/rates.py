"""The rates of an optimizer's groups: compiled, moved by a program, shown, saved and loaded.

`begin` takes the user's writes and extends the program if needed; then a backend makes the step and
shows the rates. Nothing follows a step: the program counts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..checks.refusals import as_float
from ..outside_modes import outside_modes
from ..program import FOREVER, ProgramTables, pack
from . import edits
from .bound import BoundSchedules
from .moved import Moved
from .plateaus import Plateaus
from .program import Program
from .shown import Shown

WINDOW = 1024  # epochs a table is made for at a time: 8 KiB, and under a millisecond
CAPTURED = 16_384  # the same for a captured step, which is replayed without the host


class Rates:
    """Hold the rates of all groups in fp64 cells, and the schedules that move them.

    moved: the cells, and all else that a program changes. shown: what the groups' dicts show.
    bound: the schedules, each with the groups that share it. program: runs them, and counts.
    `settle` copies the devices' results to the host; `sync` also updates torch's schedulers.

    Raises TypeError for an lr that is no number.
    """

    @outside_modes
    def __init__(
        self,
        groups: list[dict[str, Any]],
        make_program: type[Program],
        capturable: bool,
        fresh: bool = True,
    ) -> None:
        self.moved = Moved.for_groups(len(groups))
        self.shown = Shown(live=capturable)
        self.bound: list[BoundSchedules] = []
        self.program: Any = None
        self._make_program = make_program
        # By group: `_changes()` then, and the rate that a schedule had set.
        self._overwritten: dict[int, tuple[int, float]] = {}
        self.last_integer: int | None = None  # the last metric, if it may have been an epoch
        self.watched: list[edits.Watched] = []
        for i, group in enumerate(groups):
            self.shown.start(i, group, self.moved.cells, cycles_momentum=False)
        self._bind(groups, range(len(groups)), fresh)
        self.restart(groups)

    # -- groups ------------------------------------------------------------------------------

    def _bind(self, groups: list[dict[str, Any]], new: Sequence[int], fresh: bool) -> None:
        shared: dict[int, list[int]] = {}
        for i in new:
            if groups[i]["schedule"] is not None:
                shared.setdefault(id(groups[i]["schedule"]), []).append(i)
        made = [
            BoundSchedules(groups[indices[0]]["schedule"], groups, indices)
            for indices in shared.values()
        ]
        if len({id(g) for b in [*self.bound, *made] for g in b.process_groups}) > 1:
            raise ValueError(
                "ReduceLROnPlateau(process_group=...) must be the same in every plateau of an "
                "optimizer, which are fed the same metric"
            )
        for b in made:
            if fresh:
                b.give(groups)
        self.bound += made

    def _bound_to(self, group: int) -> BoundSchedules | None:
        return next((b for b in self.bound if group in b.indices), None)

    def _bound_of(self, schedule: Any) -> BoundSchedules | None:
        return next((b for b in self.bound if b.schedules is schedule), None)

    def refuse_joining(self, schedule: Any) -> None:
        """Raise ValueError if no group with this schedule can be added now."""
        if len(self.shown.rates) == self.moved.capacity:
            raise ValueError(f"an optimizer holds at most {self.moved.capacity} parameter groups")
        b = self._bound_of(schedule)
        if b is not None:
            b.refuse_joining()

    @outside_modes
    def join(self, groups: list[dict[str, Any]]) -> None:
        """Take the last of `groups`, which is new."""
        self.sync(groups[:-1])
        i = len(groups) - 1
        groups[i]["lr"] = as_float(f"param_groups[{i}]['lr']", groups[i]["lr"])
        b = self._bound_of(groups[i]["schedule"])
        if b is None:
            self._bind(groups, [i], fresh=True)
        else:
            b.join(i, groups[i])
        self._start(i, groups[i])
        self._take_states()
        self._compile()

    @outside_modes
    def restart(self, groups: list[dict[str, Any]]) -> None:
        """Take rates from the groups, and all else from torch's schedulers."""
        self.shown.momenta.clear()
        for i, group in enumerate(groups):
            self._start(i, group)
        for b in self.bound:
            b.take(groups)
        self._take_states()
        self._compile()

    def _start(self, i: int, group: dict[str, Any]) -> None:
        b = self._bound_to(i)
        cycles = b is not None and b.cycles_momentum
        self.shown.start(i, group, self.moved.cells, cycles)

    def _take_states(self) -> None:
        epochs = self.moved.epochs
        epochs.fill_(max((b.epoch for b in self.bound), default=0))
        for b in self.bound:
            epochs[b.indices] = b.epoch
        self.stepped = any(b.stepped for b in self.bound)
        self.fed = any(b.plateaus for b in self.bound)
        self.plateaus = Plateaus(self.bound, self.moved.observed)
        now = self.plateaus.states
        if now.shape != self.moved.plateau_states.shape:
            self.moved = self.moved._replace(plateau_states=now)
        self.moved.plateau_states.copy_(now)  # a captured graph keeps the address

    def _epoch(self, b: BoundSchedules) -> int:
        return int(self.moved.epochs[b.indices[0]])

    @outside_modes
    def catch_up(self) -> None:
        """Set the counters of torch's schedulers."""
        for b in self.bound:
            b.catch_up(self._epoch(b))
        self.plateaus.catch_up()

    @outside_modes
    def _compile(self) -> None:
        count = len(self.shown.rates)
        replayed = self.shown.live and self._make_program.on_device
        by_group: list[list[Any]] = [[] for _ in range(count)]
        self.catch_up()
        for b in self.bound:
            rows = b.segments(CAPTURED if replayed else WINDOW)
            for i, own in zip(b.indices, rows, strict=True):
                by_group[i] = own
        self.moved = self.moved.with_history_of(count)
        self.program = self._make_program(
            self.moved.first(count),
            ProgramTables(*pack(by_group), self.plateaus.cells, self.plateaus.rows),
            self.shown,
            min((b.left for b in self.bound), default=FOREVER),
            previous=self.program,
            may_capture=replayed or all(b.until == FOREVER for b in self.bound),
        )

    @outside_modes
    def use(self, groups: list[dict[str, Any]], make_program: type[Program]) -> None:
        """Go on with another class of program."""
        if make_program is not self._make_program:
            self.settle(groups)
            self._make_program = make_program
            self._compile()

    # -- steps -------------------------------------------------------------------------------

    def begin(self, groups: list[dict[str, Any]], due: bool = False) -> None:
        """Take over what the user has written; if `due`, let the program reach one step further.

        Raises TypeError for a written value that is no number, ValueError for groups that did not
        join, and the schedule's own error where it has ended; nothing is changed then.
        """
        program = self.program
        if len(groups) != len(self.shown.rates):
            raise ValueError(
                f"param_groups has {len(groups)} groups and the optimizer knows of "
                f"{len(self.shown.rates)}: add them by add_param_group"
            )
        if program.captured or not (program.is_shown and self.shown.is_as_shown(groups)):
            self._take_written(groups)
        if self.watched:
            edits.take_watched(self, groups)
        if due and self.program.left <= 0:
            self._settle()
            self._compile()
            for b in self.bound:
                b.refuse_to_go_on()

    @outside_modes
    def _take_written(self, groups: list[dict[str, Any]]) -> None:
        found = self.shown.written(groups)
        if found or self.program.captured:
            self._settle()  # a device's decisions came first
        if not self.program.is_shown:
            self.program.show(groups)
        for written in found:
            if self.shown.differs(written):
                if written.key == "lr":
                    self._keep_last(written.group, self.moved.cells[written.cell].item())
                self.moved.cells[written.cell] = written.value
            self.shown.accept(groups, written)
        if found and self.program.captured and not self.program.recording:
            self.program.push()  # for the next replay

    def _keep_last(self, group: int, rate: float) -> None:
        """Keep the rate that a schedule set, over which the user has written."""
        if self._bound_to(group) is None:
            return
        now = self._changes()
        if self._overwritten.get(group, (-1, 0.0))[0] != now:
            self._overwritten[group] = now, rate

    def _changes(self) -> int:
        """Return a number that grows with each schedule step and each metric."""
        return int(self.moved.recorded) + int(self.moved.observed)

    @outside_modes
    def last(self, groups: list[dict[str, Any]]) -> list[float]:
        """Return the rates that the schedules, or torch's constructors, set last, as torch does."""
        self.settle(groups)
        return self._last(groups)

    def _last(self, groups: list[dict[str, Any]]) -> list[float]:
        now = self._changes()
        pairs = ((self._overwritten.get(i, (-1, 0.0)), g["lr"]) for i, g in enumerate(groups))
        return [kept if then == now else float(lr) for (then, kept), lr in pairs]

    def advance(self, groups: list[dict[str, Any]]) -> None:
        """Make a schedule step outside of an optimizer step."""
        self.begin(groups, due=True)
        self.program.advance(groups)

    def observe(self, groups: list[dict[str, Any]], metric: float | Tensor) -> None:
        """Feed every plateau one metric, and print the cuts of verbose ones."""
        self.begin(groups)
        if self.program.in_flight and not isinstance(metric, Tensor):
            self._settle()
        self.program.observe(groups, metric, self.plateaus.announcer())

    # -- what the devices know ---------------------------------------------------------------

    def settle(self, groups: list[dict[str, Any]]) -> None:
        """Take the user's writes, wait for the devices, and show their rates."""
        self.begin(groups)
        if self.program.in_flight and not self.program.captured:  # `begin` has settled replays
            self._settle()
        if not self.program.is_shown:
            self.program.show(groups)

    @outside_modes
    def _settle(self) -> None:
        if not self.program.settle():
            return
        for b in self.bound:
            epoch = self._epoch(b)
            if epoch >= b.until > 0:
                raise RuntimeError(
                    f"a captured step was replayed up to epoch {epoch}, and its schedule "
                    f"{'ends at' if b.ends else 'was compiled up to'} {b.until - 1}: read "
                    f"scheduler.get_last_lr() every {CAPTURED // 2} replays, to compile it further"
                )
        near = [self._epoch(b) + CAPTURED // 2 >= b.until and not b.ends for b in self.bound]
        if any(near):
            self._compile()

    @outside_modes
    def used(self, groups: list[dict[str, Any]]) -> list[float]:
        """Return the rates of the last optimizer step."""
        self.settle(groups)
        return self.moved.used[: len(self.shown.rates)].tolist()

    @outside_modes
    def history(self, groups: list[dict[str, Any]]) -> Tensor:
        """Return the rows that are kept, oldest first: epoch, whether a cut, rates."""
        self.settle(groups)
        return self.moved.rows_of_history()

    # -- steps that torch's schedulers made --------------------------------------------------

    @outside_modes
    def record(self) -> None:
        """Add a schedule step that torch's schedulers made to the history."""
        self.moved.first(len(self.shown.rates)).record(cut=False)

    @outside_modes
    def is_unused(self) -> bool:
        """Return whether neither an optimizer step nor a schedule step was made yet."""
        first = bool(self.moved.used[0].isnan()) and not self.program.in_flight
        return first and not self.moved.epochs.any()

    # -- state -------------------------------------------------------------------------------

    @outside_modes
    def sync(self, groups: list[dict[str, Any]]) -> None:
        """Settle, and bring torch's schedulers up to date."""
        self.settle(groups)
        last = self._last(groups)
        states = self.moved.plateau_states.tolist()
        self.catch_up()
        row = 0
        for b in self.bound:
            own = []
            for _ in b.plateaus:
                own.append(states[row])
                row += len(b.indices)  # groups that share a plateau see the same metrics
            b.update([last[i] for i in b.indices], own)

    def states(self, groups: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Return the state of each torch scheduler, as `load` takes them."""
        self.sync(groups)
        return [[m.state_dict() for m in b.members] for b in self.bound]

    def pack(self, i: int) -> list[dict[str, Any]] | None:
        """Return the state of group i's schedules as plain data, after `sync`."""
        b = self._bound_to(i)
        return None if b is None else b.plain_state()

    def unpack(self, packed: Sequence[Any]) -> list[Any]:
        """Return the state for each of `bound`, from what `pack` returned for each group.

        None where no group has any: those schedules keep their state.
        """
        states: list[Any] = [None] * len(self.bound)
        for i, saved in enumerate(packed):
            b = self._bound_to(i)
            if saved is not None and b is None:
                raise ValueError(
                    f"the checkpoint has a schedule for group {i} and this optimizer has none: "
                    "construct it with the schedule, or set the group's 'schedule' to None"
                )
            if saved is not None and b is not None:
                states[self.bound.index(b)] = saved
        return states

    @outside_modes
    def check(self, states: Sequence[Any], override: bool = False) -> None:
        """Raise ValueError unless each of `bound` can load its part of `states`."""
        if len(states) != len(self.bound):
            raise ValueError(
                f"the state is of {len(states)} schedules, this optimizer has {len(self.bound)}"
            )
        for b, state in zip(self.bound, states, strict=True):
            if state is not None:
                b.check(state, override)

    @outside_modes
    def load(self, groups: list[dict[str, Any]], states: Sequence[Any]) -> None:
        """Load states that `check` let pass, None to keep one, and the groups' rates."""
        self.sync(groups)
        for b, state in zip(self.bound, states, strict=True):
            if state is not None:
                b.load(state)
        self.restart(groups)
        self._overwritten = {}

    def set_last(self, b: BoundSchedules, rates: Sequence[float]) -> None:
        """Let `last` return loaded rates until the schedules set others."""
        now = self._changes()
        pairs = zip(b.indices, rates, strict=False)
        self._overwritten.update({i: (now, float(rate)) for i, rate in pairs})
