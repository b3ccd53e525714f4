"""One schedule, or several in order, bound to the groups that share it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from .program import FOREVER, Segment, compile
from .schedules import Schedule

# What a scheduler's state cannot be without; of ReduceLROnPlateau, the second.
_NUMBERS = (("last_epoch",), ("last_epoch", "best", "num_bad_epochs", "cooldown_counter"))

# Keys of a group that no scheduler looks at.
_NOT_BOUND = {
    "params", "param_names", "schedule", "foreach", "fused", "differentiable", "capturable",
}  # fmt: skip


def as_schedules(schedule: Any) -> tuple[Schedule, ...] | None:
    """Return `schedule` (None, one, or several in order) as a tuple, or refuse it."""
    if schedule is None or (isinstance(schedule, tuple) and not schedule):
        return None
    several = tuple(schedule) if isinstance(schedule, (list, tuple)) else (schedule,)
    for one in several:
        if not isinstance(one, Schedule):
            hint = ""
            if isinstance(one, LRScheduler):
                hint = f"; use lrfused.{type(one).__name__}, which takes no optimizer"
            raise TypeError(
                f"schedule must be an lrfused schedule or a list of them, got {one!r}{hint}"
            )
    return several or None


class Chain:
    """Hold torch's schedulers as the record of a chain's configuration and state.

    They are bound to a probe, an optimizer of nothing with the groups' rates, so that torch's own
    constructors check the arguments and set the first rates. They are never stepped: `epoch` is
    counted here, and the schedulers are brought up to date when their state is asked for.
    """

    def __init__(self, schedules: Sequence[Schedule], groups: Sequence[dict[str, Any]]) -> None:
        self.schedules = schedules
        self.probe = torch.optim.SGD([_probe_group(group) for group in groups])
        self.members: list[LRScheduler] = [s.bind(self.probe) for s in schedules]
        self.plateaus = [m for m in self.members if isinstance(m, ReduceLROnPlateau)]
        self.stepped = [m for m in self.members if not isinstance(m, ReduceLROnPlateau)]
        self.epoch = 0
        self.until = 0
        self._count()

    def give(self, groups: Sequence[dict[str, Any]]) -> None:
        """Copy what torch's constructors wrote (lr, initial_lr) into the optimizer's groups."""
        for group, bound in zip(groups, self.probe.param_groups, strict=True):
            group.update({k: v for k, v in bound.items() if k not in _NOT_BOUND})

    def refuse_joining(self) -> None:
        """Raise if the chain cannot take another group, which torch finds at a later step."""
        for member in self.members:
            name = type(member).__name__
            if hasattr(member, "lr_lambdas"):
                raise ValueError(
                    f"{name} was made for {len(member.lr_lambdas)} groups and cannot take another; "
                    "give the new group a 'schedule' of its own"
                )
            if isinstance(member, ReduceLROnPlateau) and member.default_min_lr is None:
                raise ValueError(
                    f"{name}(min_lr=...) is a list for {len(member.min_lrs)} groups and cannot "
                    "take another; give the new group a 'schedule' of its own"
                )

    def join(self, group: dict[str, Any]) -> None:
        """Take another group, at its own rate and base."""
        group.setdefault("initial_lr", group["lr"])
        self.probe.add_param_group(_probe_group(group))
        for member in self.members:
            if isinstance(member, ReduceLROnPlateau):
                member.min_lrs = [*member.min_lrs, float(member.default_min_lr or 0.0)]
            else:
                member.base_lrs.append(group["initial_lr"])
        self.until = 0

    def segments(self, window: int) -> list[list[Segment]]:
        """Compile the next `window` epochs, for each group, in the order of the members."""
        rows: list[list[Segment]] = [[] for _ in self.probe.param_groups]
        begin, until = self.epoch + 1, FOREVER
        for member, ahead in zip(self.stepped, self._ahead, strict=True):
            compiled = compile(member, begin + ahead, begin + ahead + window)
            until = min(until, compiled.until - ahead)
            for row, segments in zip(rows, compiled.groups, strict=True):
                row.extend(s.delayed(-ahead) for s in segments)
        self.until = until
        return rows

    def update(self, epoch: int, rates: Sequence[float], plateau_states: list[list[float]]) -> None:
        """Bring torch's schedulers up to date."""
        for member, ahead in zip(self.stepped, self._ahead, strict=True):
            member._step_count += epoch + ahead - member.last_epoch
            member.last_epoch = epoch + ahead
        for plateau, (best, bad, cooldown) in zip(self.plateaus, plateau_states, strict=True):
            plateau.best = best
            plateau.num_bad_epochs = int(bad)
            plateau.cooldown_counter = int(cooldown)
        for member in self.members:
            member._last_lr = list(rates)

    def plateau_states(self) -> list[list[float]]:
        """Return what csrc/schedule.h's PlateauState holds, for each plateau."""
        return [
            [float(p.best), float(p.num_bad_epochs), float(p.cooldown_counter)]
            for p in self.plateaus
        ]

    def plain_state(self) -> list[dict[str, Any]]:
        """Return the members' states as plain data, each with its class's name."""
        return [
            {"name": type(m).__name__, **{k: _plain(v) for k, v in m.state_dict().items()}}
            for m in self.members
        ]

    def check(self, states: Any) -> None:
        """Raise ValueError unless `states` are states of these schedules."""
        names = [type(m).__name__ for m in self.members]
        if not isinstance(states, (list, tuple)) or not all(isinstance(s, dict) for s in states):
            raise ValueError(f"the checkpoint's schedule state is not a list of dicts: {states!r}")
        saved = [s.get("name", name) for s, name in zip(states, names, strict=False)]
        if len(states) != len(names) or saved != names:
            raise ValueError(f"the checkpoint's schedule is {saved}, this optimizer's {names}")
        for name, schedule, member, state in zip(
            names, self.schedules, self.members, states, strict=True
        ):
            for key in _NUMBERS[isinstance(member, ReduceLROnPlateau)]:
                if not isinstance(state.get(key), (int, float)):
                    raise ValueError(f"the checkpoint's {name} has no number {key!r}")
            for key in ("base_lrs", "min_lrs"):
                if hasattr(member, key) and len(state.get(key) or ()) != len(getattr(member, key)):
                    raise ValueError(
                        f"the checkpoint's {name} has {key}={state.get(key)!r}, this optimizer's "
                        f"is for {len(getattr(member, key))} groups"
                    )
            if isinstance(member, ReduceLROnPlateau):
                continue  # loading overwrites its settings, as torch does
            for key in schedule.arguments:
                if key in ("last_epoch", "lr_lambda"):
                    continue
                here, there = _plain(getattr(member, key)), _plain(state.get(key))
                if here != there:
                    raise ValueError(
                        f"the checkpoint's {name} has {key}={there!r}, this optimizer's {here!r}"
                    )

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Take over states that `plain_state` returned, or that torch's schedulers saved."""
        for member, state in zip(self.members, states, strict=True):
            state = {k: v for k, v in state.items() if k != "name"}
            if "milestones" in state:
                state["milestones"] = Counter(state["milestones"])
            member.load_state_dict(state)
        self._count()

    def _count(self) -> None:
        # Members of one chain may be at different epochs, when they were not attached together.
        epochs = [m.last_epoch for m in self.stepped]
        self.epoch = epochs[0] if epochs else 0
        self._ahead = [e - self.epoch for e in epochs]
        self.until = 0


def _probe_group(group: dict[str, Any]) -> dict[str, Any]:
    bound = {k: v for k, v in group.items() if k not in _NOT_BOUND}
    return {**bound, "lr": float(group["lr"]), "params": [torch.empty(0)]}


def _plain(value: Any) -> Any:
    if isinstance(value, Counter):
        return dict(sorted(value.items()))
    if isinstance(value, tuple):
        return list(value)
    return value
