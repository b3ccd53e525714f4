"""The handle that a training loop holds where it held a torch scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

if TYPE_CHECKING:
    from .optimizer import FusedDecaySGD


class Scheduler(LRScheduler):
    """Be the `LRScheduler` of a FusedDecaySGD, whose schedule lives in the optimizer itself.

    torch's constructor is not run: it would wrap the optimizer's step and write its rates.
    """

    def __init__(self, optimizer: FusedDecaySGD) -> None:
        self.optimizer: FusedDecaySGD = optimizer

    def step(self, metrics: Any = None) -> None:
        """Advance the schedule by one; or, given metrics, feed them to ReduceLROnPlateau.

        metrics is one real number: a Python or numpy scalar, or a tensor of any dtype and device.
        One on a device whose backend keeps the schedule there is not waited for; `get_last_lr()`
        and the optimizer's `state_dict()` are up to date, `param_groups` may be some steps later.
        Raises RuntimeError without metrics if the schedule advances inside optimizer.step(), and
        ValueError if there is nothing to advance or to feed.
        """
        if metrics is None:
            self.optimizer._advance_by_hand()
        else:
            self.optimizer._observe(metrics)

    @property
    def last_epoch(self) -> int:
        """Return how often the schedule has advanced; of ReduceLROnPlateau alone, its metrics."""
        self.optimizer._rates.refresh(self.optimizer.param_groups)
        for chain in self.optimizer._rates.chains:
            return chain.epoch if chain.stepped else chain.plateaus[0].last_epoch
        return 0

    @property
    def base_lrs(self) -> list[float]:
        """Return the initial rates of the groups."""
        return [float(g.get("initial_lr", g["lr"])) for g in self.optimizer.param_groups]

    @property
    def total_steps(self) -> int:
        """Return the step at which OneCycleLR ends; with other schedules there is no such name."""
        return int(self._record().total_steps)

    # accelerate counts here the steps that it leaves out, so that OneCycleLR ends in time.
    @property
    def _step_count(self) -> int:
        return int(self._record()._step_count)

    @_step_count.setter
    def _step_count(self, count: int) -> None:
        self._record()._step_count = count

    def _record(self) -> Any:
        self.optimizer._rates.count()
        for chain in self.optimizer._rates.chains:
            chain.catch_up()
            return chain.members[0]
        raise AttributeError("this optimizer has no schedule")

    @property
    def _last_lr(self) -> list[float]:
        return self.get_last_lr()

    def get_last_lr(self) -> list[float]:
        """Return the rates that the next step will use, one for each group.

        Waits for a device that still decides on a metric.
        """
        self.optimizer._rates.refresh(self.optimizer.param_groups)
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's state as plain data.

        One schedule's state is its torch namesake's; several are listed under "_schedulers".
        """
        return self.optimizer._scheduler_state()

    def load_state_dict(self, state_dict: dict[str, Any], *, override: bool = False) -> None:
        """Load what `state_dict` returned, or a torch scheduler's of the same class.

        As in torch the rates are the optimizer's to load. Raises ValueError, and changes nothing,
        if the state is that of another schedule; or of one with other settings, unless `override`.
        """
        self.optimizer._load_scheduler_state(state_dict, override)


class PlateauScheduler(Scheduler, ReduceLROnPlateau):  # type: ignore[misc]
    """Be a `ReduceLROnPlateau` too, where a loop has nothing to do but to feed it.

    Loops of frameworks step one and feed the other, by class.
    """


def handle_of(optimizer: FusedDecaySGD) -> Scheduler:
    """Return a new handle, of the class by which loops know what to do with it."""
    stepped = optimizer._rates.stepped and optimizer._schedule_every is None
    only_fed = bool(optimizer._rates.plateaus) and not stepped
    return PlateauScheduler(optimizer) if only_fed else Scheduler(optimizer)
