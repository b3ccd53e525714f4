"""The parts of a FusedDecaySGD, through which the handle and the integrations work on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, device

from . import backends
from .arithmetic.gradient_scaling import GradientScaling
from .checkpoint.initial_state import InitialState
from .rates import Rates, places
from .rates.bound import BoundSchedules
from .rates.clock import Clock

Groups = list[dict[str, Any]]
State = dict[Tensor, dict[str, Any]]


@dataclass(slots=True)
class Internals:
    """Hold an optimizer's settings, its rates, and the backend that makes its steps.

    An optimizer keeps one object of this class for its life; its attributes may be replaced.
    Wrappers replace an optimizer's groups, so every method is given them.

    device: of the first parameter, for which the backend was chosen.
    """

    backend_name: str
    capturable: bool
    scaling: GradientScaling
    clock: Clock
    initial: InitialState = field(default_factory=InitialState)
    device: device | None = None
    backend: Any = None
    rates: Any = None  # made when torch's constructor has made the groups
    warned_of_attached: bool = False  # torch schedulers beside the optimizer's own

    def make_rates(
        self,
        groups: Groups,
        defaults: dict[str, Any],
        restored: Sequence[BoundSchedules] | None = None,
    ) -> None:
        """Make the rates of all groups, whose schedules set the first ones unless `restored`."""
        program = self.backend.Program
        self.rates = Rates(groups, program, self.capturable, self.clock, defaults, restored)

    def trusted_backend(self, groups: Groups) -> Any:
        """Return the backend for these groups; raise if the one asked for cannot be used."""
        # torch updates a parameter that is listed twice once and then again: not in parallel.
        lists = [group["params"] for group in groups]
        twice = any(len(params) != len(set(params)) for params in lists)
        name = "reference" if twice else self.backend_name
        devices = list(dict.fromkeys(p.device for params in lists for p in params))
        return backends.trusted(name, devices)

    def choose_backend(self, groups: Groups) -> None:
        """Choose the backend for these groups, and run the schedules on it."""
        self.backend = self.trusted_backend(groups)
        self.device = first_device(groups)
        if self.rates is not None:
            self.rates.disturb()
            self.rates.use(groups, self.backend.Program)
            self.rates.regrouped = False

    def open_direct(self) -> None:
        """Let the next steps be made in one call, if this step and the last one were ordinary.

        The second asks the backend, once: where a loop writes rates at each step, none does.
        """
        rates = self.rates
        rates.calm += 1
        if (
            rates.calm == 2
            and self.clock.every in (None, 1)
            and not self.initial.made
            and not (rates.shown.followed or rates.watched or rates.returned)
        ):
            rates.direct = self.backend.direct(rates, self.scaling, not self.warned_of_attached)

    def prepare_capture(self, groups: Groups, state: State) -> None:
        """Make what a captured first step could not make, if the optimizer is capturable."""
        if self.capturable:
            self.backend.prepare(groups, state, self.rates.program, self.scaling)

    def state_without_prepared(self, state: State) -> State:
        """Return the state without what only `prepare_capture` has written."""
        return self.backend.without_prepared(state, self.rates.program)

    def plain(self, groups: Groups) -> dict[str, Any]:
        """Return settings, schedules and places, for pickle and copy."""
        self.rates.sync(groups)
        self.rates.take_back()
        return {
            "backend_name": self.backend_name,
            "capturable": self.capturable,
            "scaling": replace(self.scaling, grad_scale=None, found_inf=None),
            "every": self.clock.every,
            "bound": [b.restorable() for b in self.rates.bound],
            "followed": set(self.rates.shown.followed),
            "kept": self.rates.kept,
            "places": [places.packed(self.rates, i) for i in range(len(groups))],
        }

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> Internals:
        """Return parts with the settings that `plain` returned, without rates."""
        name, capturable, scaling = (plain[k] for k in ("backend_name", "capturable", "scaling"))
        return cls(name, capturable, scaling, Clock(plain["every"]))


def first_device(groups: Groups) -> device | None:
    """Return the device of the first parameter."""
    for group in groups:
        for p in group["params"]:
            return p.device
    return None
