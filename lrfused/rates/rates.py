"""The rates of an optimizer's groups: compiled, moved by a program, shown, saved and loaded.

`begin` takes the user's writes and extends the program if needed; then a backend makes the step and
shows the rates. Nothing follows a step: the program counts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..outside_modes import outside_modes
from ..program import FOREVER, ProgramTables, pack
from ..schedules.base import Schedules, as_schedules
from . import binding, edits, places, written
from .bound import BoundSchedules
from .clock import Clock
from .direct import Direct
from .moved import Moved
from .overwritten import Overwritten
from .places import Kept
from .plateaus import Plateaus
from .program import Groups, Program
from .regroup import regroup
from .shown import Shown

WINDOW = 1024  # epochs a table is made for at a time: 8 KiB, and under a millisecond
CAPTURED = 16_384  # the same for a captured step, which is replayed without the host


class Rates:
    """Hold the rates of all groups in fp64 cells, and the schedules that move them.

    moved: the cells, and all else that a program changes. shown: what the groups' dicts show.
    bound: the schedules, each with the groups that share it; away: those whose groups have all left
    `param_groups`. settings: the optimizer's defaults; default: the schedules among them. program:
    runs them, and counts. `settle` copies the devices' results to the host; `sync` also updates
    torch's schedulers.

    Raises TypeError for an lr that is no number.
    """

    @outside_modes
    def __init__(
        self,
        groups: Groups,
        make_program: type[Program],
        capturable: bool,
        clock: Clock | None = None,
        defaults: Mapping[str, Any] | None = None,
        restored: Sequence[BoundSchedules] | None = None,
    ) -> None:
        self.moved = Moved.for_groups(len(groups))
        self.shown = Shown(live=capturable)
        self.bound: list[BoundSchedules] = []
        self.away: list[BoundSchedules] = []
        self.settings = defaults or {}
        self.default: Schedules = self.settings.get("schedule")
        self.clock = clock or Clock(None)
        self.program: Any = None
        self._make_program = make_program
        self.overwritten = Overwritten()
        self.last_integer: int | None = None  # the last metric, if it may have been an epoch
        self.watched: list[edits.Watched] = []
        # Of groups, the entries that a schedule reads at each step.
        self.read: list[tuple[int, str, Any]] = []
        self.shown.groups[:] = groups
        for i, group in enumerate(groups):
            self.shown.start(i, group, self.moved.cells, cycles_momentum=False)
        self._unused = True  # as far as `is_unused` has found
        self.regrouped = False  # since the backend was chosen for the groups
        self.returned: set[int] = set()  # groups that were away, until the next schedule step
        # The rates and momenta given to the constructor. None after the first optimizer step.
        momenta = [group["momentum"] for group in groups]
        self.given: Kept | None = Kept(list(self.shown.rates), momenta, [None] * len(groups))
        self.direct: Direct | None = None
        self.calm = 0  # ordinary steps in Python
        if restored is None:
            schedules = {i: as_schedules(group["schedule"]) for i, group in enumerate(groups)}
            binding.add(self, groups, binding.make(self, groups, schedules))
        else:
            binding.add(self, groups, restored, fresh=False)
        self.restart(groups)

    @property
    def kept(self) -> Kept | None:
        """Return what the groups showed after the last optimizer step, if that has changed."""
        return Kept(*self.shown.kept) if self.shown.kept else None

    @kept.setter
    def kept(self, kept: Kept | None) -> None:
        self.shown.kept[:] = kept or ()

    def disturb(self) -> None:
        """Leave steps to Python until two in a row were ordinary."""
        self.direct, self.calm = None, 0

    # -- groups ------------------------------------------------------------------------------

    def bound_to(self, group: int) -> BoundSchedules | None:
        """Return the schedules that a group has."""
        return next((b for b in self.bound if group in b.indices), None)

    def schedules(self, group: dict[str, Any]) -> Any:
        """Return the schedules of a group, or what its dict has if it has not joined."""
        for i, known in enumerate(self.shown.groups):
            if known is group:
                b = self.bound_to(i)
                return None if b is None else b.schedules
        return group.get("schedule")

    @outside_modes
    def regroup(self, groups: Groups) -> None:
        """Take over a list of groups that has changed; raise, and change nothing, else."""
        regroup(self, groups)

    @outside_modes
    def take_back(self) -> None:
        """Let groups that were away go on where the others are, as torch's schedulers do."""
        if not self.returned:
            return
        self.settle_device()
        states = self.plateaus.by_index(self.moved.plateau_states)
        for b in self.bound:
            others = [i for i in b.indices if i not in self.returned]
            if others:
                back = [i for i in b.indices if i in self.returned]
                self.moved.epochs[back] = int(self.moved.epochs[others[0]])
                states.update({i: states[others[0]] for i in back if i in states})
        self.returned.clear()
        self._take_states(states)
        self._compile()

    @outside_modes
    def restart(
        self, groups: Groups, plateaus: Mapping[int, Sequence[Sequence[float]]] | None = None
    ) -> None:
        """Take rates from the groups, and all else from torch's schedulers.

        plateaus: by group, states that its plateaus have instead.
        """
        self.shown.momenta.clear()
        for i, group in enumerate(groups):
            b = self.bound_to(i)
            cycles = b is not None and b.cycles_momentum
            self.shown.start(i, group, self.moved.cells, cycles)
        for b in self.bound:
            b.take(groups, self.moved.cells)
        self._take_states(plateaus or {})
        self._compile()

    def _take_states(self, plateaus: Mapping[int, Sequence[Sequence[float]]]) -> None:
        epochs = self.moved.epochs
        unbound = [i for i in range(len(self.shown.rates)) if self.bound_to(i) is None]
        epochs[unbound] = max((self.epoch(b) for b in self.bound), default=0)
        self.stepped = any(b.stepped for b in self.bound)
        self.fed = any(b.plateaus for b in self.bound)
        self.plateaus = Plateaus(self.bound, self.moved.observed)
        self.plateaus.put(plateaus)
        now = self.plateaus.states
        if now.shape != self.moved.plateau_states.shape:
            self.moved = self.moved._replace(plateau_states=now)
        self.moved.plateau_states.copy_(now)  # a captured graph keeps the address
        groups = self.shown.groups
        keys = [(i, key) for b in self.bound for key in b.keys_read() for i in b.indices]
        self.read = [(i, key, groups[i].get(key)) for i, key in keys]
        self.shown.start_places(places.templates(self), self.plateaus.by_group(), self.moved)

    def epoch(self, b: BoundSchedules) -> int:
        """Return the epoch of the first group of bound schedules."""
        return int(self.moved.epochs[b.indices[0]]) if b.indices else b.epoch

    @outside_modes
    def catch_up(self) -> None:
        """Set the counters of torch's schedulers."""
        for b in self.bound:
            b.go_to(self.epoch(b))
        self.plateaus.catch_up()

    @outside_modes
    def _compile(self) -> None:
        self.disturb()
        count = len(self.shown.rates)
        replayed = self.shown.live and self._make_program.on_device
        rows: dict[int, list[Any]] = {}
        self.catch_up()
        epochs = self.moved.epochs[:count].tolist()
        for b in self.bound:
            rows.update(b.segments(CAPTURED if replayed else WINDOW, epochs))
        self.moved = self.moved.with_history_of(count)
        self.program = self._make_program(
            self.moved.first(count),
            ProgramTables(
                *pack([rows.get(i, []) for i in range(count)]),
                self.plateaus.cells,
                self.plateaus.rows,
            ),
            self.shown,
            min((b.left for b in self.bound), default=FOREVER),
            previous=self.program,
            may_capture=replayed or all(b.until == FOREVER for b in self.bound),
        )

    @outside_modes
    def use(self, groups: Groups, make_program: type[Program]) -> None:
        """Go on with another class of program."""
        if make_program is not self._make_program:
            self.settle(groups)
            self._make_program = make_program
            self._compile()

    # -- steps -------------------------------------------------------------------------------

    def begin(self, groups: Groups, due: bool | None = False) -> bool:
        """Take over what the user has written; if `due`, let the program reach one step further.

        due: whether a schedule step follows; None if the clock decides. Return whether there is one
        to make. Raises TypeError for a written value that is no number, ValueError for a group or a
        schedule that cannot join, and the schedule's own error where it has ended; nothing is
        changed then.
        """
        program = self.program
        filled = self.shown.followed and self.shown.is_filled()
        if program.captured or filled or not (program.is_shown and program.shows(groups)):
            self.disturb()
            if not self.shown.are_known(groups):
                self.regroup(groups)
            written.take(self, groups)
        if self.watched:
            edits.take_watched(self, groups)
        if self.read and any(groups[i].get(key) is not value for i, key, value in self.read):
            edits.take_read(self, groups)
        due = self.stepped and (self.clock.is_due() if due is None else due)
        if due:
            self.take_back()
        if due and self.program.left <= 0:
            self.settle_device()
            self._compile()
            for b in self.bound:
                b.refuse_to_go_on()
        return due

    def keep(self) -> None:
        """Keep what the groups show: it changes between two optimizer steps."""
        shown = self.shown
        if not shown.kept:
            shown.kept[:] = list(shown.rates), list(shown.momenta), list(shown.places)

    def changes(self) -> int:
        """Return a number that grows with each schedule step and each metric."""
        return int(self.moved.recorded) + int(self.moved.observed)

    @outside_modes
    def last(self, groups: Groups) -> list[float]:
        """Return the rates that the schedules, or torch's constructors, set last, as torch does."""
        self.settle(groups)
        return self._last()

    def _last(self) -> list[float]:
        now, groups = self.changes(), range(len(self.shown.rates))
        return [self.overwritten.last(i, now, self.rate(i)) for i in groups]

    def advance(self, groups: Groups) -> None:
        """Make a schedule step outside of an optimizer step."""
        self.begin(groups, due=True)
        self.keep()
        self.program.advance(groups)

    def observe(self, groups: Groups, metric: float | Tensor) -> None:
        """Feed every plateau one metric, and print the cuts of verbose ones."""
        self.begin(groups)
        self.keep()
        self.take_back()
        if self.program.in_flight and not isinstance(metric, Tensor):
            self.settle_device()
        self.program.observe(groups, metric, self.plateaus.announcer())

    def count(self, groups: Groups) -> None:
        """Count an optimizer step that is one of several to a schedule step."""
        self.clock.tick()
        self.shown.count(groups, self.clock.since)

    # -- what the devices know ---------------------------------------------------------------

    def settle(self, groups: Groups) -> None:
        """Take the user's writes, wait for the devices, and show their rates."""
        self.begin(groups)
        if self.program.in_flight and not self.program.captured:  # `begin` has settled replays
            self.settle_device()
        if not self.program.is_shown:
            self.keep()
            self.program.show(groups)

    @outside_modes
    def settle_device(self) -> None:
        """Wait for the devices, and take over what replays have made; groups do not show it."""
        if not self.program.settle():
            return
        for b in self.bound:
            epoch = self.epoch(b)
            if epoch >= b.until > 0:
                raise RuntimeError(
                    f"a captured step was replayed up to epoch {epoch}, and its schedule "
                    f"{'ends at' if b.ends else 'was compiled up to'} {b.until - 1}: read "
                    f"scheduler.get_last_lr() every {CAPTURED // 2} replays, to compile it further"
                )
        near = [self.epoch(b) + CAPTURED // 2 >= b.until and not b.ends for b in self.bound]
        if any(near):
            self._compile()

    @outside_modes
    def used(self, groups: Groups) -> list[float]:
        """Return the rates of the last optimizer step."""
        self.settle(groups)
        return self.moved.used[: len(self.shown.rates)].tolist()

    @outside_modes
    def history(self, groups: Groups) -> Tensor:
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
        if self._unused:
            count = len(self.shown.rates)
            used = not self.moved.used[:count].isnan().all() or self.program.in_flight
            self._unused = not used and not bool(self.moved.epochs[:count].any())
        return self._unused

    # -- state -------------------------------------------------------------------------------

    @outside_modes
    def sync(self, groups: Groups) -> None:
        """Settle, and bring torch's schedulers up to date."""
        self.settle(groups)
        self.update()

    def update(self) -> None:
        """Set what torch's schedulers show, and their counters."""
        last = self._last()
        self.catch_up()
        states = self.plateaus.by_member(self.moved.plateau_states)
        for b in self.bound:
            b.update(last, [states[id(plateau)] for plateau in b.plateaus])

    def states(self, groups: Groups) -> list[list[dict[str, Any]]]:
        """Return the state of each torch scheduler, as `load` takes them."""
        self.sync(groups)
        return [b.state() for b in self.bound]

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
    def load(self, groups: Groups, states: Sequence[Any]) -> None:
        """Load states that `check` let pass, None to keep one, and the groups' rates."""
        self.sync(groups)
        self.keep()
        for b, state in zip(self.bound, states, strict=True):
            if state is not None:
                b.load(state)
                self.moved.epochs[b.indices] = b.epoch
        self.restart(groups)
        self.overwritten.clear()

    @outside_modes
    def load_places(self, groups: Groups, found: Mapping[int, places.Place]) -> None:
        """Load places that `places.check` let pass, by group, and the rates of new dicts."""
        self.shown.groups[:] = groups
        self.overwritten.clear()
        places.load(self, groups, found)

    def rate(self, group: int) -> float:
        """Return a group's rate, as far as the host knows."""
        return self.moved.cells[2 * group].item()

    def set_last(self, b: BoundSchedules, rates: Sequence[float]) -> None:
        """Let `last` return loaded rates until the schedules set others."""
        self.overwritten.load(self.changes(), zip(b.indices, rates, strict=False))
