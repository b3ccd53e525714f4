"""The handle that a training loop holds where it held a torch scheduler."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingWarmRestarts,
    LRScheduler,
    ReduceLROnPlateau,
)

from . import program
from .checkpoint.scheduler_state import refuse_another_kind
from .checks.numbers import number as as_number
from .checks.numbers import plain, plain_list
from .checks.warned import warnings_of_the_caller
from .rates import edits
from .rates.metric import as_metric, mean

if TYPE_CHECKING:
    from .optimizer import FusedDecaySGD

_ORDER = (
    "Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch 1.1.0 and later, "
    "you should call them in the opposite order: `optimizer.step()` before `lr_scheduler.step()`. "
    "Failure to do this will result in PyTorch skipping the first value of the learning rate "
    "schedule. See more details at "
    "https://pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate"
)
# Private names that ignite writes on a scheduler.
_SHARED = ("_get_lr_called_within_step", "_is_initial")


class _Fixed(list):
    """List whose items cannot be written: it is no scheduler's own."""

    def _refuse(self, *_: Any) -> Any:
        raise TypeError(
            "these rates cannot be written here, as several schedulers have their own; write "
            "group['initial_lr'] before the schedule is constructed, or load a state_dict"
        )

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = pop = remove = clear = sort = reverse = _refuse  # type: ignore[assignment]


class Scheduler(LRScheduler):
    """Handle with torch's LRScheduler interface; its state lives in the optimizer.

    Attributes of the torch scheduler that it stands for (`gamma`, `T_max`, `best`, ...) may be read
    and written; a value that is written acts from the next schedule step on, as in torch. Reading
    them waits for a device that still decides on a metric.

    torch's constructor is not run: it would wrap the optimizer's step and write its rates.
    """

    optimizer: FusedDecaySGD

    def __init__(self, optimizer: FusedDecaySGD) -> None:
        self.optimizer = optimizer

    @property
    def _rates(self) -> Any:
        rates = self.optimizer._internals.rates
        rates.begin(self.optimizer.param_groups)  # a schedule may just have been written there
        return rates

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    # -- steps -------------------------------------------------------------------------------

    def step(self, metrics: Any = None, epoch: Any = None) -> None:
        """Advance the schedule by one; or, given metrics, feed them to ReduceLROnPlateau.

        metrics is one real number: a Python or numpy scalar, or a tensor of any dtype and device.
        The call does not wait for a metric on a device that holds the schedule; `get_last_lr()`
        and the optimizer's `state_dict()` wait, and `param_groups` may be some steps late.
        epoch: as in torch, deprecated there: the epoch to go to, also a fraction of one. Without
        a ReduceLROnPlateau in the schedule the first argument is the epoch.
        Raises RuntimeError without metrics if the schedule advances inside optimizer.step(), and
        ValueError if there is nothing to advance or to feed.
        """
        rates = self.optimizer._internals.rates
        if epoch is None and rates.direct is not None:
            if metrics is None:
                made = rates.direct.step_schedule(self.optimizer)
            else:
                made = rates.last_integer is None and rates.direct.observe(self.optimizer, metrics)
            if made:
                return
        rates = self._rates
        if metrics is not None and rates.bound and not rates.fed:
            if epoch is not None:
                raise TypeError(
                    "scheduler.step(metrics, epoch) needs a ReduceLROnPlateau in the schedule; "
                    "scheduler.step(epoch) goes to an epoch"
                )
            metrics, epoch = None, metrics
        if metrics is None:
            self._advance(rates, epoch)
        else:
            self._observe(rates, metrics, epoch)

    def _advance(self, rates: Any, epoch: Any) -> None:
        every = rates.clock.every
        if not rates.bound:
            raise ValueError("scheduler.step() needs a schedule, and this optimizer has none")
        if every is not None:
            to = "" if epoch is None else f" scheduler.step(epoch={epoch}) would move it again;"
            raise RuntimeError(
                f"the schedule advances inside optimizer.step() (schedule_every={every});{to} "
                "construct the optimizer with schedule_every=None to advance it by "
                "scheduler.step(), or pass metrics for ReduceLROnPlateau"
            )
        if not rates.stepped:
            raise ValueError("scheduler.step() needs a schedule other than ReduceLROnPlateau")
        if rates.is_unused():
            warnings.warn(_ORDER, UserWarning, stacklevel=3)
        if epoch is None:
            rates.advance(self._groups)
        else:
            self._by_torch("step", self._checked_epoch(epoch))

    def _checked_epoch(self, epoch: Any) -> int | float:
        """Return an epoch as a number; raise ValueError for a fraction that no scheduler takes."""
        number = as_number("scheduler.step(epoch=...)", epoch)
        if not math.isfinite(number):
            raise ValueError(f"scheduler.step(epoch=...) must be finite, got {epoch!r}")
        members = [m for b in self._rates.bound for m in b.stepped]
        if number == int(number):
            return int(number)
        if not all(isinstance(m, CosineAnnealingWarmRestarts) for m in members):
            raise ValueError(
                f"scheduler.step(epoch={epoch!r}): only CosineAnnealingWarmRestarts takes a "
                f"fraction of an epoch, and this is {self._names()}"
            )
        return number

    def _by_torch(self, method: str, *arguments: Any) -> None:
        """Call a method of torch's schedulers, and take over the rates that it sets."""
        with warnings_of_the_caller(4), edits.edit(self._rates, self._groups):
            for b in self._rates.bound:
                for member in b.stepped:
                    getattr(member, method)(*arguments)
        self._rates.record()

    # torch's SequentialLR calls these two on its members.
    def _initial_step(self) -> None:
        self._refuse_composition()
        self._by_torch("_initial_step")

    def _update_lr(self, epoch: Any = None) -> None:
        self._refuse_composition()
        self._by_torch("_update_lr", epoch)

    def _refuse_composition(self) -> None:
        members = [m for b in self._rates.bound for m in b.members]
        if len(members) != 1 or hasattr(members[0], "_schedulers"):
            raise TypeError(
                f"a handle of {self._names()} cannot be a member of torch's SequentialLR; compose "
                "them by lrfused.SequentialLR"
            )

    def _observe(self, rates: Any, metrics: Any, epoch: Any) -> None:
        if not rates.fed:
            raise ValueError("scheduler.step(metrics) needs a ReduceLROnPlateau in the schedule")
        if rates.stepped and (type(metrics) is int or rates.last_integer is not None):
            self._warn_of_an_epoch(metrics)
        if epoch is not None:
            epoch = as_number("scheduler.step(epoch=...)", epoch)
        group = rates.plateaus.process_group
        metric = metrics if rates.program.takes(metrics) else as_metric(metrics)
        rates.observe(self.optimizer.param_groups, metric if group is None else mean(metric, group))
        if epoch is not None:
            warnings.warn(
                torch.optim.lr_scheduler.EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=3
            )
            with edits.edit(rates, self._groups):
                for plateau in (plateau for b in rates.bound for plateau in b.plateaus):
                    plateau.last_epoch = epoch

    def _warn_of_an_epoch(self, metrics: Any) -> None:
        number = metrics if type(metrics) is int else None
        before, self._rates.last_integer = self._rates.last_integer, number
        if number is not None and before is not None and number == before + 1:
            warnings.warn(
                f"scheduler.step({metrics}) was taken for a metric of ReduceLROnPlateau and looks "
                "like an epoch: call scheduler.step() to advance the other schedules, and pass a "
                "float if it is a metric",
                UserWarning,
                stacklevel=4,
            )

    # -- the torch scheduler's attributes ----------------------------------------------------

    @property
    def last_epoch(self) -> int:
        """Return how often the schedule has advanced; of ReduceLROnPlateau alone, its metrics.

        It may be assigned: the next schedule step goes to the epoch after it.
        """
        self._rates.settle(self._groups)
        self._rates.catch_up()
        for b in self._rates.bound:
            return b.last_epoch()
        return 0

    @last_epoch.setter
    def last_epoch(self, epoch: Any) -> None:
        number = as_number("scheduler.last_epoch", epoch)
        if not math.isfinite(number) or number != int(number):
            raise ValueError(f"scheduler.last_epoch must be an integer, got {epoch!r}")
        if number == -1:  # torch's SequentialLR takes the first step of its members back
            self._refuse_composition()
        with edits.edit(self._rates, self._groups):
            for b in self._rates.bound:
                for member in b.members:
                    program.set_last_epoch(member, int(number))

    @property
    def base_lrs(self) -> Any:
        """Return the initial rates of the groups; the torch scheduler's own list, if it has one."""
        owners = self._owners("base_lrs")
        if len(self._rates.bound) == 1 and len(owners) == 1:
            edits.watch(self._rates, owners[0], "base_lrs")
            return owners[0].base_lrs
        return _Fixed(float(g.get("initial_lr", g["lr"])) for g in self._groups)

    @base_lrs.setter
    def base_lrs(self, value: Any) -> None:
        self._write("base_lrs", value)

    # accelerate counts here the steps that it leaves out, so that OneCycleLR ends in time.
    @property
    def _step_count(self) -> int:
        return int(self._first_member()._step_count)

    @_step_count.setter
    def _step_count(self, count: int) -> None:
        self._first_member()._step_count = count

    def _first_member(self) -> Any:
        """Return the first torch scheduler, with its counters up to date."""
        self._rates.catch_up()
        for b in self._rates.bound:
            return b.members[0]
        raise AttributeError("this optimizer has no schedule")

    def _owners(self, name: str) -> list[Any]:
        """Return the torch schedulers that have an attribute of their own, so no method."""
        return [m for b in self._rates.bound for m in b.members if name in vars(m)]

    def __getattr__(self, name: str) -> Any:
        if name == "optimizer" or (name.startswith("_") and name not in _SHARED):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        owners = [m for b in self._rates.bound for m in b.members if hasattr(m, name)]
        if not owners:
            raise AttributeError(f"{self._names()} has no attribute {name!r}")
        edits.lend(self._rates, self._groups)
        if isinstance(vars(owners[0]).get(name), (list, dict, Counter)):
            edits.watch(self._rates, owners[0], name)
        return getattr(owners[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = isinstance(getattr(type(self), name, None), property)
        if name in _SHARED:
            for member in (m for b in self._rates.bound for m in b.members):
                setattr(member, name, value)
        elif name == "optimizer" or own or not self._owners(name):
            object.__setattr__(self, name, value)  # torch keeps any attribute, too
        else:
            self._write(name, value)

    def _write(self, name: str, value: Any) -> None:
        owners = self._owners(name)
        if len(owners) != 1:
            raise AttributeError(
                f"scheduler.{name} cannot be set: of {self._names()}, {len(owners)} have it; load "
                "a state with the value, scheduler.load_state_dict(state, override=True)"
            )
        (owner,) = owners
        value = plain_list(plain(value))
        refuse_another_kind(name, getattr(owner, name), value)
        with edits.edit(self._rates, self._groups, strict=True):
            setattr(owner, name, value)

    def _names(self) -> str:
        names = [type(m).__name__ for b in self._rates.bound for m in b.members]
        return ", ".join(names) or "an optimizer without a schedule"

    # -- rates -------------------------------------------------------------------------------

    @property
    def _last_lr(self) -> list[float]:
        return self.get_last_lr()

    def get_last_lr(self) -> list[float]:
        """Return the rates that the schedule set last, one for each group.

        The next step uses them, unless a group's lr was written since. Waits for a device that
        still decides on a metric.
        """
        return self._rates.last(self._groups)

    def get_lr(self) -> Any:
        """Return what the torch scheduler's `get_lr()` returns, with its warning.

        For several schedulers, or where torch has none, that is what `get_last_lr()` returns.
        """
        members = [m for b in self._rates.bound for m in b.stepped]
        if len(self._rates.bound) == len(members) == 1 and not hasattr(members[0], "_schedulers"):
            if program.cycles_momentum(members[0]):  # whose get_lr() sets the momentum
                with warnings_of_the_caller(2), edits.edit(self._rates, self._groups):
                    return members[0].get_lr()
            edits.lend(self._rates, self._groups)
            with warnings_of_the_caller(2):
                return members[0].get_lr()
        warnings.warn(
            "To get the last learning rate computed by the scheduler, please use `get_last_lr()`.",
            UserWarning,
            stacklevel=2,
        )
        return self.get_last_lr()

    # -- checkpoints -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's state as plain data.

        One schedule's state is its torch namesake's; several are listed under "_schedulers".
        """
        states = self._rates.states(self._groups)
        if len(states) != 1:
            return {"_chains": [{"_schedulers": own} for own in states]}
        return states[0][0] if len(states[0]) == 1 else {"_schedulers": states[0]}

    def load_state_dict(self, state_dict: dict[str, Any], *, override: bool = False) -> None:
        """Load what `state_dict` returned, or a torch scheduler's of the same class.

        As in torch the rates are the optimizer's to load. Raises ValueError, and changes nothing,
        if the state is that of another schedule; or of one with other settings, unless `override`.
        """
        rates, groups = self._rates, self._groups
        if "_chains" in state_dict:
            states = [own["_schedulers"] for own in state_dict["_chains"]]
        elif len(rates.bound) == 1 and len(rates.bound[0].members) == 1:
            states = [[state_dict]]
        else:
            states = [state_dict.get("_schedulers", [state_dict])]
        rates.begin(groups)
        rates.check(states, override)
        rates.load(groups, states)
        for b, own in zip(rates.bound, states, strict=True):
            if own is not None and "_last_lr" in own[0]:
                rates.set_last(b, own[0]["_last_lr"])
        self.optimizer._internals.prepare_capture(groups, self.optimizer.state)


class PlateauScheduler(Scheduler, ReduceLROnPlateau):
    """Handle of a schedule that is only fed metrics.

    Frameworks use isinstance to choose `step()` or `step(metric)`.
    """


def handle_of(optimizer: FusedDecaySGD) -> Scheduler:
    """Return a new handle, of the class by which frameworks choose how to step it."""
    rates, clock = optimizer._internals.rates, optimizer._internals.clock
    stepped = rates.stepped and clock.every is None
    only_fed = bool(rates.plateaus) and not stepped
    return PlateauScheduler(optimizer) if only_fed else Scheduler(optimizer)
