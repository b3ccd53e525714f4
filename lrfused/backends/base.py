"""The contract of a backend, on one page; docs/backends.md shows how one is added."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor
from torch import device as Device

from ..arithmetic.gradient_scaling import GradientScaling
from ..rates import Rates, program
from ..rates.direct import Direct

Groups = list[dict[str, Any]]
State = dict[Tensor, dict[str, Any]]


class Backend(ABC):
    """Make the steps of an optimizer.

    A step reuses nothing unchecked: wrappers replace groups, parameters, gradients and state
    between two steps. It does the following, in this order.

    1. Refuse a capture in a CUDA graph of what its replays could not do.
    2. Honour what GradScaler found: if `scaling.skips()`, call `scaling.step_without_update(...)`
       and return False.
    3. Refuse what cannot be updated, in the words of checks/refusals.py, before the first write:
       not even the rates of the step are noted then.
    4. With `scaling.max_grad_norm` take the norm of all gradients together into
       `scaling.norm`. Under a GradScaler a norm that is not finite ends the step as 2 does.
    5. Make the state that is missing, and keep it apart.
    6. Note the rates used: `program.use()`.
    7. Update every parameter that has a gradient, with the bits of reference.py.
    8. Put the state that was made into `state`, and bump the versions of parameters and momentum
       buffers for autograd.
    9. Leave odd tensors to the reference: odd_parameters.py. They were checked in 3.
    10. If `advance`, make the schedule's step and show its rates: `program.advance(groups)`.

    So a step that raises in 1 to 5 has changed nothing, and one that raises later has neither left
    half-made state nor advanced the schedule.

    name: by which it is chosen. Program: what runs the schedules; rates/program.py.
    """

    name: ClassVar[str]
    Program: type[program.Program]

    @abstractmethod
    def step(
        self, groups: Groups, state: State, program: Any, advance: bool, scaling: GradientScaling
    ) -> bool:
        """Update every parameter that has a gradient, then advance the program if asked.

        Return whether the update was made; True also if the device decides.
        """

    def unavailable(self) -> str | None:
        """Return the reason why the backend cannot be used here, or None if it can."""
        return None

    def unavailable_on(self, device: Device) -> str | None:
        """Return the reason why the kernels cannot run on a device of theirs, or None."""
        return None

    def direct(  # noqa: B027
        self, rates: Rates, scaling: GradientScaling, may_warn: bool
    ) -> Direct | None:
        """Return functions that make ordinary steps in one call, or None.

        may_warn: whether a torch scheduler that has wrapped the step is still to be warned of.
        """

    def prepare(  # noqa: B027
        self, groups: Groups, state: State, program: Any, scaling: GradientScaling
    ) -> None:
        """Make the state that a captured first step could not make; nothing by default."""

    def without_prepared(self, state: State, program: Any) -> State:
        """Return the state without entries that only `prepare` has written."""
        return state
