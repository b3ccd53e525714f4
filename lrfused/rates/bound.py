"""One schedule, or several in order, bound to the groups that share it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from .. import program
from ..checkpoint import group_lists, scheduler_state
from ..checks.refusals import as_float, check_epoch
from ..outside_modes import zeros
from ..program import FOREVER, Segment
from ..schedules import Schedule
from ..schedules.lr_lambda import own_lr_lambda
from .slot import Slot

Groups = list[dict[str, Any]]

# Keys of a group that no scheduler looks at.
_NOT_BOUND = {
    "params", "param_names", "schedule", "foreach", "fused", "differentiable", "capturable",
}  # fmt: skip

# Attributes with an entry for each group, made of arguments that were for so many groups.
_PER_GROUP = ("lr_lambdas", "max_lrs", "min_lrs", "lrs")


class _Compiled(NamedTuple):
    """Hold compiled schedulers; their segments count from `epoch`."""

    epoch: int
    window: int
    parts: list[program.CompiledSchedule]

    def left(self, part: program.CompiledSchedule, epoch: int) -> int:
        """Return how many steps a part is still valid for, from an epoch on."""
        return part.until - 1 - (epoch - self.epoch)

    def reaches(self, epoch: int, window: int) -> bool:
        """Return whether half a window is left after an epoch, or all until a schedule's end."""
        return (
            window == self.window
            and epoch >= self.epoch
            and all(
                p.until == FOREVER or self.left(p, epoch) >= (1 if p.error else window // 2)
                for p in self.parts
            )
        )


class BoundSchedules:
    """Hold torch's schedulers, which keep the configuration and the state of the schedules.

    They are bound to a probe, an optimizer without parameters that has the groups' rates: torch's
    constructors check the arguments and set the first rates. They are never stepped: a program
    does that, and `catch_up` then sets their counters.

    slots: of the groups that share these schedules, in the order of the probe's. A group that left
    `param_groups` keeps its slot, and finds it again by its parameters. epoch: steps that the
    schedulers count.
    """

    def __init__(
        self,
        schedules: tuple[Schedule, ...],
        groups: Groups,
        slots: Sequence[Slot],
    ) -> None:
        """Bind schedules to groups, each with its slot."""
        self.schedules = schedules
        self.slots = list(slots)
        self.probe = torch.optim.SGD([_probe_group(group) for group in groups])
        # torch's schedulers would warn that the probe is never stepped, or not by a wrapped step.
        vars(self.probe).update(_opt_called=True, step=_never_called)
        self.members: list[LRScheduler] = [s.bind(self.probe) for s in schedules]
        for member in self.leaves():
            if hasattr(member, "lr_lambdas"):  # a loaded state is written into them
                member.lr_lambdas = list(map(own_lr_lambda, member.lr_lambdas))
        self.plateaus = [m for m in self.members if isinstance(m, ReduceLROnPlateau)]
        self.stepped = [m for m in self.members if not isinstance(m, ReduceLROnPlateau)]
        self.start()

    def start(self) -> None:
        """Count from where the schedulers are; nothing is compiled."""
        epoch = program.last_epoch(self.stepped[0]) if self.stepped else 0
        check_epoch("scheduler.last_epoch", epoch)
        self.epoch = max(math.floor(epoch), 0)
        self.left = -1  # steps that are compiled
        self.until = 0  # the first epoch that is not compiled, of the first group
        self.error: Exception | None = None  # that keeps the schedules from going on at `until`
        self._origin = self.epoch, [program.copied(m) for m in self.stepped]
        self._compiled: _Compiled | None = None

    @property
    def process_groups(self) -> list[Any]:
        """Return each plateau's process group, over which its metric is averaged, or None."""
        pairs = zip(self.schedules, self.members, strict=True)
        return [getattr(s, "process_group", None) for s, m in pairs if m in self.plateaus]

    @property
    def cycles_momentum(self) -> bool:
        """Return whether any member moves momentum too."""
        return any(program.cycles_momentum(m) for m in self.leaves())

    def keys_read(self) -> set[str]:
        """Return the keys of a group that OneCycleLR reads at each step."""
        phases = [phase for m in self.leaves() for phase in getattr(m, "_schedule_phases", ())]
        return {key for phase in phases for name, key in phase.items() if name != "end_step"}

    def leaves(self) -> Iterator[Any]:
        """Yield the members, and in place of a composition its own."""
        pending: list[Any] = list(reversed(self.members))
        while pending:
            member = pending.pop()
            if hasattr(member, "_schedulers"):
                pending.extend(reversed(member._schedulers))
            else:
                yield member

    # -- groups ------------------------------------------------------------------------------

    @property
    def indices(self) -> list[int]:
        """Return the indices of the groups in `param_groups` that share the schedules."""
        return [i for _, i in self.present()]

    def present(self) -> list[tuple[int, int]]:
        """Return each of those groups as (its number among the probe's groups, its index)."""
        found = [(k, slot.index) for k, slot in enumerate(self.slots) if slot.index is not None]
        return sorted(found, key=lambda pair: pair[1])

    def give(self, groups: Groups, cells: Tensor) -> None:
        """Copy what torch's schedulers wrote, such as lr and initial_lr, into the groups.

        The rates go into their cells, too: a tensor rate has them rounded.
        """
        for k, i in self.present():
            given = {k: v for k, v in self.probe.param_groups[k].items() if k not in _NOT_BOUND}
            rate = as_float(f"param_groups[{i}]['lr']", given.pop("lr"))
            cells[2 * i] = rate
            set_rate(groups[i], rate)
            groups[i].update(given)

    def take(self, groups: Groups, cells: Tensor) -> None:
        """Copy the groups' entries into the probe's, and into the groups what they lack.

        The rates come from their cells.
        """
        for k, i in self.present():
            bound = self.probe.param_groups[k]
            bound.update({k: v for k, v in groups[i].items() if k not in _NOT_BOUND})
            bound["lr"] = cells[2 * i].item()
            for key, value in bound.items():
                if key not in _NOT_BOUND:
                    groups[i].setdefault(key, value)

    def restorable(self) -> tuple[Any, Groups, list[int | None]]:
        """Return what `restored` takes, for pickle and copy."""
        groups = [{**group, "params": []} for group in self.probe.param_groups]
        return self.schedules, groups, [slot.index for slot in self.slots]

    @classmethod
    def restored(cls, schedules: Any, groups: Groups, indices: list[int | None]) -> BoundSchedules:
        """Return the schedules that `restorable` described; the groups that left have left."""
        return cls(schedules, groups, [Slot(i) for i in indices])

    def refuse_joining(self) -> None:
        """Raise ValueError if no other group can share the schedules."""
        for member in self.leaves():
            name = type(member).__name__
            lists = [k for k in _PER_GROUP if getattr(member, k, None) is not None]
            if isinstance(member, ReduceLROnPlateau) and member.default_min_lr is not None:
                lists = []
            if isinstance(member, OneCycleLR):
                lists = ["max_lr"]
            if lists:
                count = len(self.probe.param_groups)
                raise ValueError(
                    f"{name} was made for {count} groups ({', '.join(lists)}) and cannot take "
                    "another; give the new group a 'schedule' of its own"
                )

    def join(self, index: int, group: dict[str, Any]) -> None:
        """Share the schedules with another group, at its own rate."""
        self._drop_free_slots()
        group.setdefault("initial_lr", group["lr"])
        self.probe.add_param_group(_probe_group(group))
        self.slots.append(Slot(index))
        self._compiled = None
        for member in self.leaves():
            if isinstance(member, ReduceLROnPlateau):
                member.min_lrs = [*member.min_lrs, float(member.default_min_lr or 0.0)]
            else:
                member.base_lrs = [*member.base_lrs, group["initial_lr"]]  # states hold the old

    def _drop_free_slots(self) -> None:
        keep = [k for k, slot in enumerate(self.slots) if not slot.is_free]
        if len(keep) == len(self.slots):
            return
        self.slots = [self.slots[k] for k in keep]
        self.probe.param_groups[:] = [self.probe.param_groups[k] for k in keep]
        for member in self.leaves():  # a group may join: there are no other lists
            for name in ("min_lrs", "base_lrs"):
                if hasattr(member, name):
                    setattr(member, name, [getattr(member, name)[k] for k in keep])

    # -- steps -------------------------------------------------------------------------------

    def last_epoch(self) -> Any:
        """Return the epoch of the first scheduler that is stepped; else a plateau's metrics."""
        if self.stepped:
            return program.last_epoch(self.stepped[0])
        return self.plateaus[0].last_epoch

    def segments(self, window: int, epochs: Sequence[int]) -> dict[int, list[Segment]]:
        """Compile the next `window` steps, or at least half of them, of each group by its index.

        epochs: of all groups, from which each goes on. An error that keeps the schedules from being
        compiled further is kept in `error`.
        """
        at: dict[int, list[tuple[int, int]]] = {}
        for k, i in self.present():
            at.setdefault(epochs[i], []).append((k, i))
        rows: dict[int, list[Segment]] = {}
        self.left, self.error = FOREVER, None
        for epoch, own in reversed(at.items()):  # the first group's last, where the counters stay
            self.go_to(epoch)
            compiled = self._compiled
            if compiled is None or not compiled.reaches(epoch, window):
                made = [program.compile(member, window) for member in self.stepped]
                compiled = self._compiled = _Compiled(epoch, window, made)
            for part in compiled.parts:
                left = part.until if part.until == FOREVER else compiled.left(part, epoch)
                if left < self.left:
                    self.left, self.error = left, part.error
            for k, i in own:
                rows[i] = [s.delayed(compiled.epoch) for p in compiled.parts for s in p.groups[k]]
        self.until = FOREVER if self.left == FOREVER else self.epoch + self.left + 1
        return rows

    @property
    def ends(self) -> bool:
        """Return whether the schedule itself, and not only its tables, ends at `until`."""
        return self.error is not None

    def refuse_to_go_on(self) -> None:
        """Raise the error that keeps the schedules from their next step, if there is one."""
        if self.error is not None and self.left <= 0:
            raise self.error

    def go_to(self, epoch: int) -> None:
        """Set the counters of torch's schedulers to an epoch, and leave their rates alone."""
        if epoch < self.epoch:
            self.epoch, origin = self._origin
            for member, copied in zip(self.stepped, origin, strict=True):
                program.set_counters(member, copied)
        if epoch < self.epoch:  # before a change by hand: what torch does where it is written
            for member in self.stepped:
                program.set_last_epoch(member, epoch)
        else:
            for member in self.stepped:
                program.forward(member, epoch - self.epoch)
        self.epoch = epoch

    def update(self, rates: Sequence[float], plateau_states: Sequence[list[float]]) -> None:
        """Set the rates that torch's schedulers return, and the states of the plateaus.

        rates: of all groups.
        """
        for plateau, state in zip(self.plateaus, plateau_states, strict=True):
            program.set_plateau_state(plateau, state)
        own = [as_float("lr", group["lr"]) for group in self.probe.param_groups]
        for k, i in self.present():
            own[k] = rates[i]
        for member in self.members:
            program.show_rates(member, own)

    # -- changes by hand ---------------------------------------------------------------------

    def attributes(self) -> list[dict[str, Any]]:
        """Return the attributes of all schedulers, nested ones too, and the probe's groups."""
        owners, pending = list(self.probe.param_groups), list(self.members)
        while pending:
            own = vars(pending.pop())
            owners.append(own)
            pending.extend(own.get("_schedulers", ()))
        return owners

    # -- checkpoints -------------------------------------------------------------------------

    def plain_state(self) -> list[dict[str, Any]]:
        """Return the members' states as plain data, each with its class's name.

        Their lists have an entry for each group that is present.
        """
        return [self._of_present(scheduler_state.plain_state(m)) for m in self.members]

    def state(self) -> list[dict[str, Any]]:
        """Return the members' states as torch's `state_dict` does, for the groups present."""
        return [self._of_present(scheduler_state.torch_state(m)) for m in self.members]

    def tensors(self) -> list[dict[str, Any]]:
        """Return the tensors among the members' states, which places in the groups leave out."""
        states = map(scheduler_state.plain_state, self.members)
        return [{k: v for k, v in state.items() if isinstance(v, torch.Tensor)} for state in states]

    def _of_present(self, state: dict[str, Any]) -> dict[str, Any]:
        return group_lists.of_some(state, [k for k, _ in self.present()], len(self.slots))

    def _of_all(self, states: Sequence[Any]) -> list[Any]:
        """Return states of the groups present, with what the others have."""
        slots, count = [k for k, _ in self.present()], len(self.slots)
        owns = map(scheduler_state.plain_state, self.members)
        return [
            group_lists.of_all(s, own, slots, count) for s, own in zip(states, owns, strict=True)
        ]

    def check(self, states: Any, override: bool) -> None:
        """Raise ValueError unless `states` are states of these schedules.

        With `override` their settings may differ.
        """
        names = [type(m).__name__ for m in self.members]
        if not isinstance(states, (list, tuple)) or not all(isinstance(s, dict) for s in states):
            raise ValueError(f"the checkpoint's schedule state is not a list of dicts: {states!r}")
        saved = [s.get("name", name) for s, name in zip(states, names, strict=False)]
        if len(states) != len(names) or saved != names:
            raise ValueError(f"the checkpoint's schedule is {saved}, this optimizer's {names}")
        for member, state in zip(self.members, self._of_all(states), strict=True):
            scheduler_state.check(member, state, override)

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Load states that `plain_state` returned, or that torch's schedulers saved."""
        for member, state in zip(self.members, self._of_all(states), strict=True):
            scheduler_state.load(member, state)
        self.start()


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Set a group's rate, in its tensor if it has one, as torch's schedulers do."""
    if isinstance(group["lr"], torch.Tensor):
        with torch.no_grad():
            group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _never_called() -> None:
    raise AssertionError("the probe has no parameters to update")


_never_called._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


def _probe_group(group: dict[str, Any]) -> dict[str, Any]:
    bound = {k: v for k, v in group.items() if k not in _NOT_BOUND}
    return {**bound, "lr": as_float("lr", group["lr"]), "params": [zeros(0)]}
