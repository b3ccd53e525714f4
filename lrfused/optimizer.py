"""FusedDecaySGD: torch.optim.SGD whose learning-rate schedule is part of the step."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.optimizer import ParamsT

from . import backends
from .arithmetic.gradient_scaling import GradientScaling
from .arithmetic.masters import key_of
from .checkpoint import optimizer_state
from .checks import settings
from .checks.numbers import number, plain
from .checks.refusals import (
    as_float,
    check_arguments,
    check_cycles,
    check_max_grad_norm,
    check_rate,
    check_ticks,
    plain_settings,
    take_numbers,
)
from .checks.warned import warnings_of_the_caller
from .integrations.step_hooks import warn_of_attached, wrap_step
from .integrations.zero_grad import zero_grad
from .internals import Internals, first_device
from .rates import binding, places
from .rates.bound import BoundSchedules
from .rates.clock import Clock
from .rates.history import LRHistory
from .scheduler import handle_of
from .schedules.base import as_schedules


class FusedDecaySGD(SGD):
    r"""Implement SGD with its learning-rate schedule in one fused step, bit for bit torch's.

    A drop-in replacement for `torch.optim.SGD`, and a subclass: the arguments they share mean the
    same and are checked the same. Parameters are of float32, float64, bfloat16 or float16, or
    complex; several dtypes may be mixed. Complex parameters and sparse gradients are updated by
    torch's own operations.

    Args:
        params: parameters, named parameters, or groups of them, as for any torch optimizer.
        lr: learning rate, a float or a tensor of one element.
        momentum: momentum factor.
        dampening: dampening for momentum, ignored on a parameter's first step.
        weight_decay: L2 penalty.
        nesterov: whether to use Nesterov momentum; needs momentum and no dampening.
        maximize: whether to maximize the objective.
        schedule: an lrfused schedule, or a list of them applied in order. A group may have its own,
            `{"params": ..., "schedule": ...}`.
        schedule_every: optimizer steps to one schedule step, which is part of the last of them;
            None if the loop calls `optimizer.scheduler.step()` itself.
        amp: "fused" if the step itself divides by a GradScaler's scale, and skips the update where
            the scaler found infinities; None if the scaler does both before the step.
        advance: "always" if a step that skips the update advances the schedule too, as
            torch's scheduler does in a loop; "on_update" if it does not.
        max_grad_norm: the norm, over all groups together, to which the step clips gradients;
            `grad_norm` is the norm before that.
        master_weights: True to update bfloat16 and float16 parameters through float32 masters,
            `state[p]["master"]`, with float32 momentum; "remainder" to keep only the low 16 bits of
            a bfloat16's master, `state[p]["master_remainder"]`.
        backend: "auto", "compiled", "cuda", "triton" or "reference"; it must pass its self-test.
        capturable: whether `param_groups[i]["lr"]` is the live fp64 cell instead of a float.
        foreach: no effect; accepted so that a call of torch.optim.SGD need not be changed.
        fused: likewise.
        differentiable: must be False.

    `param_groups[i]["lr"]` is the rate that the next step will use, and may be assigned. Momentum
    buffers are `state[p]["momentum_buffer"]`, as in torch, and checkpoints go both ways.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        schedule: Any = None,
        schedule_every: int | None = 1,
        amp: str | None = None,
        advance: str = "always",
        max_grad_norm: float | None = None,
        master_weights: bool | str = False,
        backend: str = "auto",
        capturable: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None:
        check_rate(lr)
        rate, momentum = number("lr", lr), number("momentum", momentum)
        dampening, weight_decay = (
            number("dampening", dampening),
            number("weight_decay", weight_decay),
        )
        nesterov, maximize, schedule_every = plain(nesterov), plain(maximize), plain(schedule_every)
        check_arguments(rate, momentum, dampening, weight_decay, nesterov, differentiable)
        check_ticks(schedule_every, amp, advance)
        if backend != "auto":
            backends.choose(backend)  # refused before anything else is done
        scaling = GradientScaling(
            amp, advance == "on_update", check_max_grad_norm(max_grad_norm), key_of(master_weights)
        )
        self._internals = Internals(backend, capturable, scaling, Clock(schedule_every))
        defaults = {
            "lr": lr if isinstance(lr, Tensor) else float(rate),
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": None,
            "differentiable": False,
            "fused": None,
            "capturable": capturable,
            "schedule": as_schedules(schedule),
            "schedule_every": schedule_every,
            "amp": amp,
            "advance": advance,
            "max_grad_norm": scaling.max_grad_norm,
            "master_weights": master_weights,
            "backend": backend,
        }
        wrap_step(type(self), FusedDecaySGD.step)
        try:
            super(SGD, self).__init__(params, defaults)  # SGD's own would drop our defaults
            self._internals.choose_backend(self.param_groups)
            self._internals.make_rates(self.param_groups, self.defaults)
            self._internals.prepare_capture(self.param_groups, self.state)
        except Exception:
            settings.take_out(getattr(self, "param_groups", ()), self.defaults["schedule"])
            raise

    @property
    def scheduler(self) -> Any:
        """Return the handle for loops that hold a scheduler, or a ReduceLROnPlateau.

        An optimizer without a schedule keeps what is assigned, as torch's do.
        """
        if "_assigned" in self.__dict__:
            return self._assigned
        # The handle keeps the optimizer alive, so the optimizer must not keep the handle.
        handle = self.__dict__.get("_handle", lambda: None)()
        if handle is None:
            handle = handle_of(self)
            self._handle = weakref.ref(handle)
        return handle

    @scheduler.setter
    def scheduler(self, value: Any) -> None:
        if self._internals.rates.bound:
            raise TypeError(
                "optimizer.scheduler is the handle of the built-in schedule and cannot be set; "
                f"keep the {type(value).__name__} in a variable, or construct the optimizer "
                "without a schedule"
            )
        self._assigned = value

    @property
    def backend(self) -> str:
        """Return the name of the backend that makes the steps; "auto" has become one of them."""
        return self._internals.backend.name

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, which joins the schedule, or its own, at its own lr.

        Raises ValueError for a schedule with arguments for each group, or that sets them.
        """
        parts = self._internals
        comes_back = parts.rates is not None and binding.has_had(parts.rates, param_group)
        with settings.new_group(len(self.param_groups), param_group, self.defaults, comes_back):
            super().add_param_group(param_group)
        if parts.rates is None:  # torch's constructor adds the first groups
            return
        try:
            parts.trusted_backend(self.param_groups)  # refused before anything has joined
            parts.rates.regroup(self.param_groups)
        except Exception:
            self.param_groups.pop()
            raise
        parts.choose_backend(self.param_groups)
        parts.prepare_capture(self.param_groups, self.state)

    def step(self, closure: Any = None) -> Any:
        """Perform a single optimization step and, once in `schedule_every`, the schedule's.

        `closure` reevaluates the model and returns the loss. A step that is
        refused changes nothing. An error during the update may leave some parameters updated, and
        does not advance the schedule.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parts, groups = self._internals, self.param_groups
        rates, clock, scaling, initial = parts.rates, parts.clock, parts.scaling, parts.initial
        if (initial.made or not self.state) and initial.make(groups, self.state, scaling.master):
            rates.disturb()
            return loss
        if first_device(groups) != parts.device:  # the model was moved
            parts.choose_backend(groups)
        counts = clock.every not in (None, 1)
        if counts and rates.program.recording:
            raise RuntimeError(
                f"a step with schedule_every={clock.every} cannot be captured: its "
                "replays would all advance the schedule, or none; use schedule_every=None, and "
                "scheduler.step() between replays"
            )
        due = rates.begin(groups, due=None)
        if rates.regrouped:
            parts.choose_backend(groups)
        if due and "step" in self.__dict__ and not parts.warned_of_attached:
            own = [scheduler for b in rates.bound for scheduler in b.members]
            parts.warned_of_attached = warn_of_attached(self, own)
        scaling.read(self)
        updated = parts.backend.step(groups, self.state, rates.program, due, scaling)
        rates.given = rates.kept = None
        if counts and (updated or not scaling.on_update):
            rates.count(groups)
        parts.open_direct()
        return loss

    zero_grad = zero_grad

    @property
    def lr_used(self) -> list[float]:
        """Return the rates that the last step used, or would have used had it made an update.

        `param_groups` has the next step's.
        """
        return self._internals.rates.used(self.param_groups)

    @property
    def max_grad_norm(self) -> float | None:
        """Return the norm to which gradients are clipped, or None; it may be assigned."""
        return self._internals.scaling.max_grad_norm

    @max_grad_norm.setter
    def max_grad_norm(self, value: float | None) -> None:
        self._internals.scaling.max_grad_norm = check_max_grad_norm(value)
        self._internals.rates.disturb()

    @property
    def grad_norm(self) -> Tensor:
        """Return the norm of all gradients in the last step, before clipping, without a wait.

        A tensor of one fp64 element, on the device that took it. NaN where none was taken: before
        the first step, and in a step that GradScaler's `found_inf` skipped.
        """
        return self._internals.scaling.grad_norm

    def lr_history(self) -> LRHistory:
        """Return the rates after each of the last 1,024 schedule steps and plateau cuts.

        On a GPU this waits for the device.
        """
        return LRHistory.of(self._internals.rates.history(self.param_groups))

    @property  # an attribute in SGD, where only fused=True sets it
    def _step_supports_amp_scaling(self) -> bool:  # type: ignore[override]
        """Return whether `step` unscales and skips itself; GradScaler reads this."""
        return self._internals.scaling.amp == "fused"

    def __repr__(self) -> str:
        """Return torch's list of the groups, each with its schedules instead of their place."""
        shown = object.__new__(type(self))
        schedules = self._internals.rates.schedules
        shown.param_groups = [{**g, "schedule": schedules(g)} for g in self.param_groups]
        return SGD.__repr__(shown)

    # -- checkpoints -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer and its schedule: numbers, strings, lists, tensors."""
        rates, groups = self._internals.rates, self.param_groups
        rates.settle(groups)
        rates.take_back()
        packed = super().state_dict()
        rates.sync(groups)
        for i, group in enumerate(packed["param_groups"]):
            group.update(plain_settings(group), lr=rates.rate(i))
            place = places.packed(rates, i)
            group["schedule"] = place and {**place, "lr": group["lr"]}
        return packed

    def load_state_dict(self, state_dict: dict[str, Any], *, override: bool = False) -> None:
        """Load a checkpoint of this optimizer, or of `torch.optim.SGD`.

        Raises ValueError, and changes nothing, if its schedule has other settings than this one's,
        unless `override`: then it brings its own.
        """
        optimizer_state.check_form(state_dict)
        self._override = override
        hook = self.register_load_state_dict_pre_hook(optimizer_state.hold)
        try:
            with warnings_of_the_caller(2):
                super().load_state_dict(state_dict)
        finally:
            hook.remove()
            del self._override

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a loaded checkpoint, or be made anew by pickle or copy."""
        if "param_groups" not in state:
            return super().__setstate__(state)
        if "_internals" in self.__dict__:
            self._load(state)
        else:
            self._unpickle(dict(state))

    def _load(self, state: dict[str, Any]) -> None:
        parts, groups = self._internals, state["param_groups"]
        override = getattr(self, "_override", False)
        saved = optimizer_state.schedules(groups)
        found = {
            i: places.check_form(i, place) for i, place in enumerate(saved) if place is not None
        }
        places.check(parts.rates, found, override)
        if not override:
            check_cycles(groups, self.param_groups)
        for i, group in enumerate(groups):
            take_numbers(i, group)
        optimizer_state.release(groups, state["state"], parts.scaling.master)
        parts.rates.sync(self.param_groups)
        rates = [float(group["lr"]) for group in groups]
        for new, old, rate in zip(groups, self.param_groups, rates, strict=True):
            new.update(fused=None, foreach=None, differentiable=False, lr=rate)
            new.update(capturable=parts.capturable, schedule=old["schedule"])
            for name, value in {**self.defaults, "nesterov": False, "maximize": False}.items():
                if name not in settings.OF_OPTIMIZER:
                    new.setdefault(name, value)  # for old checkpoints, as torch does
        super().__setstate__(state)
        parts.initial.made = {}  # something was loaded into them
        parts.rates.load_places(self.param_groups, found)
        parts.prepare_capture(self.param_groups, self.state)

    def __getstate__(self) -> dict[str, Any]:
        parts, groups = self._internals, self.param_groups
        parts.initial.forget(self.state)
        parts.rates.settle(groups)
        return {
            **super().__getstate__(),
            "state": parts.state_without_prepared(self.state),
            "_internals": parts.plain(groups),
        }

    def _unpickle(self, state: dict[str, Any]) -> None:
        plain = state.pop("_internals")
        wrap_step(type(self), FusedDecaySGD.step)
        super().__setstate__(state)
        self._internals = parts = Internals.of_plain(plain)
        parts.choose_backend(self.param_groups)
        for i, group in enumerate(self.param_groups):
            if i not in plain["followed"]:
                group["lr"] = as_float("lr", group["lr"])  # it may be a copy of a cell
        restored = [BoundSchedules.restored(*each) for each in plain["bound"]]
        parts.make_rates(self.param_groups, self.defaults, restored)
        found = {i: place for i, place in enumerate(plain["places"]) if place is not None}
        parts.rates.load_places(self.param_groups, found)
        parts.rates.kept = plain["kept"]
        parts.prepare_capture(self.param_groups, self.state)
