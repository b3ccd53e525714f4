"""The learning rates of an optimizer's groups, and what moves them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_, itemgetter
from typing import Any

import torch
from torch import Tensor

from ..checks import as_float
from ..program import FOREVER, pack
from .bound import Chain
from .plateaus import Plateaus

_LR = itemgetter("lr")
_WINDOW = 1024  # epochs a table is made for at a time: 8 KiB, and under a millisecond
_CAPTURED = 16_384  # the same for a captured step, which is replayed without us
_CAPACITY = 1024  # groups whose cells never move
_HISTORY = 1024  # schedule steps and cuts that are remembered


class Rates:
    """Hold the rates in fp64 cells, the chains that move them, and their compiled program.

    The cells are the truth. `param_groups[i]["lr"]` shows them as floats; a float that is not the
    one shown was written by the user and is taken over. With `capturable` it is the cell itself.
    Each group has a second cell for its momentum, used where a schedule cycles that.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], program: Any, capturable: bool, fresh: bool = True
    ) -> None:
        for i, group in enumerate(groups):
            group["lr"] = as_float(f"param_groups[{i}]['lr']", group["lr"])
        self.chains: list[Chain] = []
        self._members: list[list[int]] = []  # of each chain, its groups' indices
        self._make_program = program
        self._capturable = capturable
        self.program: Any = None
        self.remote: Any = None  # the program, if it runs where the host would have to wait
        self._capacity = max(_CAPACITY, len(groups))
        self._cells = torch.zeros(2 * self._capacity, dtype=torch.float64)
        self._epochs = torch.zeros(self._capacity, dtype=torch.int64)
        self._used = torch.full((self._capacity,), torch.nan, dtype=torch.float64)
        self._history = torch.zeros(_HISTORY, 2, dtype=torch.float64)
        self._recorded = torch.zeros(1, dtype=torch.int64)
        self._plateau_states = torch.zeros(0, 5, dtype=torch.float64)
        self._views: list[Tensor] = []  # capturable: one cell each, the same object always
        self._shown: list[Any] = []
        self._shown_momentum: dict[int, float] = {}  # of the groups in which it is cycled
        self._bind(groups, range(len(groups)), fresh)
        self.restart(groups)

    # -- groups ------------------------------------------------------------------------------

    def _bind(self, groups: Sequence[dict[str, Any]], new: Sequence[int], fresh: bool) -> None:
        shared: dict[int, list[int]] = {}
        for i in new:
            if groups[i]["schedule"] is not None:
                shared.setdefault(id(groups[i]["schedule"]), []).append(i)
        chains = [
            Chain(groups[indices[0]]["schedule"], [groups[i] for i in indices])
            for indices in shared.values()
        ]
        ranks = {id(g) for chain in [*self.chains, *chains] for g in chain.process_groups}
        if len(ranks) > 1:
            raise ValueError(
                "ReduceLROnPlateau(process_group=...) must be the same in every plateau of an "
                "optimizer, which are fed the same metric"
            )
        for chain, indices in zip(chains, shared.values(), strict=True):
            if fresh:
                chain.give([groups[i] for i in indices])
            self.chains.append(chain)
            self._members.append(indices)

    def _chain_index(self, group: int) -> int | None:
        for c, members in enumerate(self._members):
            if group in members:
                return c
        return None

    def _chain_of(self, schedule: Any) -> int | None:
        for c, chain in enumerate(self.chains):
            if chain.schedules is schedule:
                return c
        return None

    def refuse_joining(self, schedule: Any) -> None:
        """Raise if no group with this schedule can be added now."""
        if len(self._shown) == self._capacity:
            raise ValueError(f"an optimizer holds at most {self._capacity} parameter groups")
        c = self._chain_of(schedule)
        if c is not None:
            self.chains[c].refuse_joining()

    def join(self, groups: Sequence[dict[str, Any]]) -> None:
        """Take the last of `groups`, which is new."""
        self.sync()
        i = len(groups) - 1
        group = groups[i]
        group["lr"] = as_float(f"param_groups[{i}]['lr']", group["lr"])
        c = self._chain_of(group["schedule"])
        if c is None:
            self._bind(groups, [i], fresh=True)
        else:
            self.chains[c].join(group)
            self._members[c].append(i)
        self._set(i, group)
        self._load_states()
        self._compile()

    # -- rates -------------------------------------------------------------------------------

    def restart(self, groups: Sequence[dict[str, Any]]) -> None:
        """Take what the groups say from them, and everything else from the chains."""
        self._shown = []
        self._shown_momentum = {}
        for i, group in enumerate(groups):
            self._set(i, group)
        for chain, members in zip(self.chains, self._members, strict=True):
            chain.take([groups[i] for i in members])
        self._load_states()
        self._compile()

    def _set(self, i: int, group: dict[str, Any]) -> None:
        self._cells[2 * i] = rate = float(group["lr"])
        if self._capturable and len(self._views) == i:
            self._views.append(self._cells[2 * i])
        value = self._views[i] if self._capturable else rate
        self._shown[i : i + 1] = [value]
        group["lr"] = value
        c = self._chain_index(i)
        if c is not None and self.chains[c].cycles_momentum:
            momentum = as_float(f"param_groups[{i}]['momentum']", group["momentum"])
            self._cells[2 * i + 1] = self._shown_momentum[i] = momentum

    def take_written(self, groups: Sequence[dict[str, Any]]) -> None:
        """Take over what the user has written since it was last shown."""
        if self.remote is not None and self.remote.captured:
            self.settle()
        if len(groups) != len(self._shown):
            raise ValueError(
                f"param_groups has {len(groups)} groups and the optimizer knows of "
                f"{len(self._shown)}: add them by add_param_group"
            )
        if all(map(is_, map(_LR, groups), self._shown)) and not self._shown_momentum:
            return
        for i, group in enumerate(groups):
            lr, shown = group["lr"], self._shown[i]
            if lr is shown:
                continue
            value = as_float(f"param_groups[{i}]['lr']", lr)
            if self._capturable:
                shown.fill_(value)
            elif value != shown:
                self.settle()
                self._cells[2 * i] = value
                self._shown[i] = shown = value
            group["lr"] = shown
        for i, momentum in self._shown_momentum.items():
            if groups[i]["momentum"] is not momentum:
                value = as_float(f"param_groups[{i}]['momentum']", groups[i]["momentum"])
                if value != momentum:
                    self.settle()
                    self._cells[2 * i + 1] = value
                self._shown_momentum[i] = value

    def show(self, groups: Sequence[dict[str, Any]]) -> None:
        """Put what the next step will use where the user reads it."""
        if not self._capturable:
            self.program.show(groups, self._shown)
        if self._shown_momentum:
            cells = self.program.cells()
            for i in self._shown_momentum:
                groups[i]["momentum"] = self._shown_momentum[i] = cells[2 * i + 1]

    def used(self) -> list[float]:
        """Return the rates of the last step."""
        self.settle()
        return self._used[: len(self._shown)].tolist()

    def history(self) -> Tensor:
        """Return the rows that are remembered, oldest first: epoch, whether a cut, rates."""
        self.settle()
        recorded, length = int(self._recorded), len(self._history)
        if recorded <= length:
            return self._history[:recorded].clone()
        return self._history.roll(-(recorded % length), 0)

    def ready(self) -> None:
        """Make sure that the program reaches one step further."""
        if self._left <= 0:
            self.settle()
            self._compile()
            for chain in self.chains:
                chain.refuse_to_go_on()

    def advanced(self, groups: Sequence[dict[str, Any]], shown: bool = False) -> None:
        """Count a step that the program has made, unless it was captured instead.

        Show what it came to, unless the program is one whose update does so and it was `shown`.
        """
        if self.remote is None or not self.remote.recording:
            self._left -= 1
        if not (shown and self._is_shown):
            self.show(groups)

    def count(self) -> None:
        """Have the chains count the steps that the program has made since they last did."""
        for chain, members in zip(self.chains, self._members, strict=True):
            chain.advanced(int(self._epochs[members[0]]) - chain.epoch)

    def observe(self, groups: Sequence[dict[str, Any]], metric: float | Tensor) -> None:
        """Feed every plateau one metric, and say what a verbose one has cut."""
        self.take_written(groups)
        tell = self.plateaus.teller()
        moved = self.remote is not None  # by what has landed meanwhile
        if isinstance(metric, Tensor):
            self.program.observe_later(metric, tell)
        else:
            self.settle()
            before = self.program.cells() if tell else []
            moved |= self.program.observe(metric)
            if tell:
                tell(before, self.program.cells())
        if not self.recording:
            self.plateaus.count(1)
        if moved:
            self.show(groups)

    def takes(self, metric: Any) -> bool:
        """Return whether a metric can be observed on its device, without reading it here."""
        return self.remote is not None and bool(self.remote.takes(metric))

    @property
    def recording(self) -> bool:
        """Return whether what is launched now is recorded into a graph instead of run."""
        return self.remote is not None and bool(self.remote.recording)

    def settle(self) -> None:
        """Wait for what only a device knows: a plateau's decision, the replays of a graph."""
        if self.remote is None or not self.remote.settle():
            return
        self.plateaus.count(self.remote.replayed())
        self.count()
        for chain in self.chains:
            if chain.epoch >= chain.until > 0:
                raise RuntimeError(
                    f"a captured step was replayed up to epoch {chain.epoch}, and its schedule "
                    f"{'ends at' if chain.ends else 'was compiled up to'} {chain.until - 1}: read "
                    f"scheduler.get_last_lr() every {_CAPTURED // 2} replays, to compile it further"
                )
        if any(c.epoch + _CAPTURED // 2 >= c.until and not c.ends for c in self.chains):
            self._compile()
        else:
            self._left = self._reach()

    def refresh(self, groups: Sequence[dict[str, Any]]) -> None:
        """Show rates and epochs as they are now, waiting for a device that decides them."""
        if self.remote is not None and self.remote.in_flight:
            self.take_written(groups)
            self.settle()
            self.show(groups)
        self.count()

    def use(self, program: Any) -> None:
        """Go on with another kind of program."""
        if program is not self._make_program:
            self.settle()
            self._make_program = program
            self._compile()

    # -- state -------------------------------------------------------------------------------

    def sync(self) -> None:
        """Bring the chains' torch schedulers up to date with the cells."""
        self.settle()
        self.count()
        rates = self.program.cells()[::2]
        states = self._plateau_states.tolist()
        row = 0
        for chain, members in zip(self.chains, self._members, strict=True):
            own = []
            for _ in chain.plateaus:
                own.append(states[row])
                row += len(members)  # the groups of a chain see the same metrics
            chain.update([rates[i] for i in members], own)

    def chain_states(self) -> list[list[dict[str, Any]]]:
        """Return the states of every chain's torch schedulers, as `load` takes them."""
        self.sync()
        return [[m.state_dict() for m in chain.members] for chain in self.chains]

    def pack(self, i: int) -> list[dict[str, Any]] | None:
        """Return the state of group i's chain as plain data, after `sync`."""
        c = self._chain_index(i)
        return None if c is None else self.chains[c].plain_state()

    def unpack(self, packed: Sequence[Any]) -> list[Any]:
        """Return what each chain is to load, from what `pack` returned for each group.

        A chain none of whose groups has anything is to keep its state: None.
        """
        states: list[Any] = [None] * len(self.chains)
        for i, saved in enumerate(packed):
            c = self._chain_index(i)
            if saved is not None and c is None:
                raise ValueError(
                    f"the checkpoint has a schedule for group {i} and this optimizer has none: "
                    "construct it with the schedule, or set the group's 'schedule' to None"
                )
            if saved is not None and c is not None:
                states[c] = saved
        return states

    def check(self, states: Sequence[Any], override: bool = False) -> None:
        """Raise ValueError unless every chain can load its part of `states`."""
        if len(states) != len(self.chains):
            raise ValueError(
                f"the state is of {len(states)} schedules, this optimizer has {len(self.chains)}"
            )
        for chain, state in zip(self.chains, states, strict=True):
            if state is not None:
                chain.check(state, override)

    def load(self, states: Sequence[Any]) -> None:
        """Load every chain's part of `states`, which `check` let pass; None keeps what is."""
        self.sync()
        for chain, state in zip(self.chains, states, strict=True):
            if state is not None:
                chain.load(state)

    def _load_states(self) -> None:
        self.stepped = any(chain.stepped for chain in self.chains)  # not only fed
        self._epochs.fill_(max((chain.epoch for chain in self.chains), default=0))
        for chain, members in zip(self.chains, self._members, strict=True):
            for i in members:
                self._epochs[i] = chain.epoch
        self.plateaus = Plateaus(self.chains, self._members)
        now = self.plateaus.states
        if now.shape != self._plateau_states.shape:
            self._plateau_states = now
        self._plateau_states.copy_(now)  # a captured graph keeps the address

    def _reach(self) -> int:
        return min((c.until - 1 - c.epoch for c in self.chains), default=FOREVER)

    def _compile(self) -> None:
        self.count()
        captured = self._capturable and hasattr(self._make_program, "succeed")
        window = _CAPTURED if captured else _WINDOW
        by_group: list[list[Any]] = [[] for _ in self._shown]
        for chain, members in zip(self.chains, self._members, strict=True):
            for i, own in zip(members, chain.segments(window), strict=True):
                by_group[i] = own
        segments, constants, tables = pack(by_group)
        count = len(self._shown)
        previous = self.program
        if self._history.shape[1] != 2 + count:  # groups have joined
            new = self._history.new_full((_HISTORY, 2 + count - self._history.shape[1]), torch.nan)
            self._history = torch.cat([self._history, new], 1)
        self.program = self._make_program(
            self._cells[: 2 * count],
            self._epochs[:count],
            self._used[:count],
            self._history,
            self._recorded,
            self._plateau_states,
            segments,
            constants,
            tables,
            self.plateaus.cells,
            self.plateaus.rows,
        )
        self._left = self._reach()
        self._is_shown = (
            hasattr(self.program, "shown") and not self._capturable and not self._shown_momentum
        )
        if self._is_shown:
            self.program.shown = self._shown
        self.remote = self.program if hasattr(self.program, "succeed") else None
        if self.remote is not None:
            endless = all(chain.until == FOREVER for chain in self.chains)
            cycled = {i: 2 * i + 1 for i in self._shown_momentum}
            self.remote.succeed(previous, cycled, may_capture=captured or endless)
