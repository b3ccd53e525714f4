"""The handle that a training loop holds where it held a torch scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from .rates.metric import as_metric, mean

if TYPE_CHECKING:
    from .optimizer import FusedDecaySGD


class Scheduler(LRScheduler):
    """Handle with torch's LRScheduler interface; its state lives in the optimizer.

    torch's constructor is not run: it would wrap the optimizer's step and write its rates.
    """

    def __init__(self, optimizer: FusedDecaySGD) -> None:
        self.optimizer: FusedDecaySGD = optimizer

    @property
    def _rates(self) -> Any:
        return self.optimizer._parts.rates

    def step(self, metrics: Any = None) -> None:
        """Advance the schedule by one; or, given metrics, feed them to ReduceLROnPlateau.

        metrics is one real number: a Python or numpy scalar, or a tensor of any dtype and device.
        One on a device whose backend keeps the schedule there is not waited for; `get_last_lr()`
        and the optimizer's `state_dict()` are up to date, `param_groups` may be some steps later.
        Raises RuntimeError without metrics if the schedule advances inside optimizer.step(), and
        ValueError if there is nothing to advance or to feed.
        """
        if metrics is None:
            self._advance()
        else:
            self._observe(metrics)

    def _advance(self) -> None:
        rates, every = self._rates, self.optimizer._parts.clock.every
        if not rates.bound:
            raise ValueError("scheduler.step() needs a schedule, and this optimizer has none")
        if every is not None:
            raise RuntimeError(
                f"the schedule advances inside optimizer.step() (schedule_every={every}); "
                "construct the optimizer with schedule_every=None to advance it by "
                "scheduler.step(), or pass metrics for ReduceLROnPlateau"
            )
        if not rates.stepped:
            raise ValueError("scheduler.step() needs a schedule other than ReduceLROnPlateau")
        rates.advance(self.optimizer.param_groups)

    def _observe(self, metrics: Any) -> None:
        rates = self._rates
        if not rates.plateaus:
            raise ValueError("scheduler.step(metrics) needs a ReduceLROnPlateau in the schedule")
        group = rates.plateaus.process_group
        metric = metrics if rates.program.takes(metrics) else as_metric(metrics)
        rates.observe(self.optimizer.param_groups, metric if group is None else mean(metric, group))

    @property
    def last_epoch(self) -> int:
        """Return how often the schedule has advanced; of ReduceLROnPlateau alone, its metrics."""
        self._rates.settle(self.optimizer.param_groups)
        return self._rates.epoch()

    @property
    def base_lrs(self) -> list[float]:
        """Return the initial rates of the groups."""
        return [float(g.get("initial_lr", g["lr"])) for g in self.optimizer.param_groups]

    @property
    def total_steps(self) -> int:
        """Return the step at which OneCycleLR ends; AttributeError with other schedules."""
        return int(self._first_member().total_steps)

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

    @property
    def _last_lr(self) -> list[float]:
        return self.get_last_lr()

    def get_last_lr(self) -> list[float]:
        """Return the rates that the next step will use, one for each group.

        Waits for a device that still decides on a metric.
        """
        self._rates.settle(self.optimizer.param_groups)
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's state as plain data.

        One schedule's state is its torch namesake's; several are listed under "_schedulers".
        """
        self._rates.begin(self.optimizer.param_groups)
        states = self._rates.states()
        if len(states) != 1:
            return {"_chains": [{"_schedulers": own} for own in states]}
        return states[0][0] if len(states[0]) == 1 else {"_schedulers": states[0]}

    def load_state_dict(self, state_dict: dict[str, Any], *, override: bool = False) -> None:
        """Load what `state_dict` returned, or a torch scheduler's of the same class.

        As in torch the rates are the optimizer's to load. Raises ValueError, and changes nothing,
        if the state is that of another schedule; or of one with other settings, unless `override`.
        """
        rates, groups = self._rates, self.optimizer.param_groups
        if "_chains" in state_dict:
            states = [own["_schedulers"] for own in state_dict["_chains"]]
        elif len(rates.bound) == 1 and len(rates.bound[0].members) == 1:
            states = [[state_dict]]
        else:
            states = [state_dict.get("_schedulers", [state_dict])]
        rates.begin(groups)
        rates.check(states, override)
        rates.load(groups, states)
        self.optimizer._parts.prepare_capture(groups, self.optimizer.state)


class PlateauScheduler(Scheduler, ReduceLROnPlateau):  # type: ignore[misc]
    """Handle of a schedule that is only fed metrics.

    Frameworks use isinstance to choose `step()` or `step(metric)`.
    """


def handle_of(optimizer: FusedDecaySGD) -> Scheduler:
    """Return a new handle, of the class by which frameworks choose how to step it."""
    rates, clock = optimizer._parts.rates, optimizer._parts.clock
    stepped = rates.stepped and clock.every is None
    only_fed = bool(rates.plateaus) and not stepped
    return PlateauScheduler(optimizer) if only_fed else Scheduler(optimizer)
