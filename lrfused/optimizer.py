"""FusedDecaySGD: torch.optim.SGD whose learning-rate schedule is part of the step."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch import device as Device
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from . import backends
from .arithmetic.gradient_scaling import GradientScaling
from .arithmetic.masters import key_of
from .checkpoint import initial_state, optimizer_state
from .checks import check_arguments, check_cycles, check_max_grad_norm, check_numbers, check_ticks
from .integrations.step_hooks import warn_of_attached, wrap_step
from .rates.history import LRHistory
from .rates.metric import as_metric, mean
from .rates.rates import Rates
from .scheduler import Scheduler, handle_of
from .schedules.base import as_schedules, shared_schedules


class FusedDecaySGD(Optimizer):
    r"""Implement SGD with its learning-rate schedule in one fused step, bit for bit torch's.

    A drop-in replacement for `torch.optim.SGD`: the arguments they share mean the same and are
    checked the same. Parameters are dense tensors of float32, float64, bfloat16 or float16;
    several dtypes may be mixed.

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
        amp: "fused" if the step itself is to take a GradScaler's scale, and to make no update where
            it found infinities; None if the scaler is to do so before the step.
        advance: whether the schedule advances in a step without an update: "always", as torch's
            does in a loop, or "on_update".
        max_grad_norm: clip gradients to this norm, taken over all groups together, inside the step;
            `grad_norm` is what it was.
        master_weights: True to update bfloat16 and float16 parameters through float32 masters,
            `state[p]["master"]`, with float32 momentum; "remainder" to keep of a bfloat16's master
            only the 16 bits that the parameter lacks, `state[p]["master_remainder"]`.
        backend: "auto", "compiled", "triton" or "reference"; used where its self-test passes.
        capturable: whether `param_groups[i]["lr"]` is the live fp64 cell instead of a float.
        foreach: accepted, so that a call need not be changed, and ignored.
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
        check_arguments(lr, momentum, dampening, weight_decay, nesterov, differentiable)
        check_ticks(schedule_every, amp, advance)
        self._backend_name = backend
        if backend != "auto":
            backends.choose(backend)  # refused before anything else is done
        self._capturable = capturable
        self._schedule_every = schedule_every
        self._since = 0  # optimizer steps since the last schedule step
        self._scaling = GradientScaling(
            amp, advance == "on_update", check_max_grad_norm(max_grad_norm), key_of(master_weights)
        )
        self._rates: Any = None
        self._blank: dict[Tensor, Any] = {}
        defaults = {
            "lr": float(lr),
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
        }
        wrap_step(type(self))
        super().__init__(params, defaults)
        self._choose_backend()
        self._rates = Rates(self.param_groups, self._backend.Program, capturable)
        self._prepare_capture()

    @property
    def scheduler(self) -> Scheduler:
        """Return the handle for loops that hold a scheduler, or a ReduceLROnPlateau."""
        # The handle keeps the optimizer alive, so the optimizer must not keep the handle.
        handle = self.__dict__.get("_handle", lambda: None)()
        if handle is None:
            handle = handle_of(self)
            self._handle = weakref.ref(handle)
        return handle

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, which joins the schedule, or its own, at its own lr.

        Raises ValueError for a schedule with arguments for each group, or that sets them.
        """
        if isinstance(param_group, dict) and param_group.get("schedule") is not None:
            param_group["schedule"] = shared_schedules(self.param_groups, param_group["schedule"])
        if self._rates is not None:
            schedule = self.defaults["schedule"]
            if isinstance(param_group, dict):
                schedule = param_group.get("schedule", schedule)
            self._rates.refuse_joining(schedule)
        super().add_param_group(param_group)
        if self._rates is not None:
            try:
                self._trusted_backend()  # refused before anything has joined
                self._rates.join(self.param_groups)
            except Exception:
                self.param_groups.pop()
                raise
            self._choose_backend()
            self._prepare_capture()

    def _choose_backend(self) -> None:
        self._backend = self._trusted_backend()
        self._device = self._first_device()
        if self._rates is not None:
            self._rates.use(self._backend.Program)

    def _trusted_backend(self) -> Any:
        # torch updates a parameter that is listed twice once and then again: not in parallel.
        lists = [group["params"] for group in self.param_groups]
        twice = any(len(params) != len(set(params)) for params in lists)
        name = "reference" if twice else self._backend_name
        devices = list(dict.fromkeys(p.device for params in lists for p in params))
        return backends.trusted(name, devices)

    def _prepare_capture(self) -> None:
        prepare = getattr(self._backend, "prepare", None)
        if self._capturable and prepare is not None:
            prepare(self.param_groups, self.state, self._rates.program, self._scaling)

    def _first_device(self) -> Device | None:
        for group in self.param_groups:
            for p in group["params"]:
                return p.device
        return None

    def step(self, closure: Any = None) -> Any:
        """Perform a single optimization step and, once in `schedule_every`, the schedule's.

        `closure` reevaluates the model and returns the loss. A step that raises has changed
        nothing.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if (self._blank or not self.state) and initial_state.made(self):
            return loss
        rates, groups = self._rates, self.param_groups
        if self._first_device() != self._device:  # the model was moved
            self._choose_backend()
        rates.take_written(groups)
        if self._schedule_every not in (None, 1) and rates.recording:
            raise RuntimeError(
                f"a step with schedule_every={self._schedule_every} cannot be captured: its "
                "replays would all advance the schedule, or none; use schedule_every=None, and "
                "scheduler.step() between replays"
            )
        turn = self._schedule_every is not None and self._since + 1 >= self._schedule_every
        due = turn and rates.stepped
        if due:
            if "step" in self.__dict__:
                warn_of_attached(self, [s for chain in rates.chains for s in chain.members])
            rates.ready()
        scaling = self._scaling
        scaling.read(self)
        updated = self._backend.step(groups, self.state, rates.program, due, scaling)
        if not updated and scaling.on_update:
            return loss
        if self._schedule_every is not None:
            self._since = 0 if turn else self._since + 1
        if due:
            rates.advanced(groups, shown=updated)
        return loss

    @property
    def lr_used(self) -> list[float]:
        """Return the rates that the last step used, or would have used had it made an update.

        `param_groups` has the next step's.
        """
        return self._rates.used()

    @property
    def max_grad_norm(self) -> float | None:
        """Return what the norm of the gradients is clipped to; it may be assigned."""
        return self._scaling.max_grad_norm

    @max_grad_norm.setter
    def max_grad_norm(self, value: float | None) -> None:
        self._scaling = replace(self._scaling, max_grad_norm=check_max_grad_norm(value))

    @property
    def grad_norm(self) -> Tensor:
        """Return the norm of all gradients in the last step, before clipping; nobody waits for it.

        A tensor of one fp64 element, on the device that took it. NaN where none was taken: before
        the first step, and where GradScaler's `found_inf` made the step one without an update.
        """
        return self._scaling.grad_norm

    def lr_history(self) -> LRHistory:
        """Return the rates after each of the last 1,024 schedule steps and plateau cuts.

        They are written on the device as they happen, and read, and waited for, here.
        """
        return LRHistory.of(self._rates.history())

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Tell GradScaler to leave both the scale and the skipping to `step`."""
        return self._scaling.amp == "fused"

    # -- the schedule ------------------------------------------------------------------------

    def _advance_by_hand(self) -> None:
        if not self._rates.chains:
            raise ValueError("scheduler.step() needs a schedule, and this optimizer has none")
        if self._schedule_every is not None:
            raise RuntimeError(
                f"the schedule advances inside optimizer.step() (schedule_every="
                f"{self._schedule_every}); construct the optimizer with schedule_every=None to "
                "advance it by scheduler.step(), or pass metrics for ReduceLROnPlateau"
            )
        if not self._rates.stepped:
            raise ValueError("scheduler.step() needs a schedule other than ReduceLROnPlateau")
        self._rates.take_written(self.param_groups)
        self._rates.ready()
        self._rates.program.advance()
        self._rates.advanced(self.param_groups)

    def _observe(self, metrics: Any) -> None:
        rates = self._rates
        if not rates.plateaus:
            raise ValueError("scheduler.step(metrics) needs a ReduceLROnPlateau in the schedule")
        group = rates.plateaus.process_group
        metric = metrics if rates.takes(metrics) else as_metric(metrics)
        rates.observe(self.param_groups, metric if group is None else mean(metric, group))

    def _scheduler_state(self) -> dict[str, Any]:
        self._rates.take_written(self.param_groups)
        chains = self._rates.chain_states()
        if len(chains) != 1:
            return {"_chains": [{"_schedulers": chain} for chain in chains]}
        return chains[0][0] if len(chains[0]) == 1 else {"_schedulers": chains[0]}

    def _load_scheduler_state(self, state_dict: dict[str, Any], override: bool) -> None:
        own = self._rates.chains
        if "_chains" in state_dict:
            states = [chain["_schedulers"] for chain in state_dict["_chains"]]
        elif len(own) == 1 and len(own[0].members) == 1:
            states = [[state_dict]]
        else:
            states = [state_dict.get("_schedulers", [state_dict])]
        self._rates.take_written(self.param_groups)
        self._rates.check(states, override)
        self._rates.load(states)
        self._rates.restart(self.param_groups)
        self._prepare_capture()

    # -- checkpoints -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer and its schedule: numbers, strings, lists, tensors."""
        self._rates.take_written(self.param_groups)
        self._rates.refresh(self.param_groups)
        packed = super().state_dict()
        self._rates.sync()
        for i, group in enumerate(packed["param_groups"]):
            group["lr"] = float(group["lr"])
            chain = self._rates.pack(i)
            group["schedule"] = chain and {
                "steps_since": self._since, "schedulers": chain, "lr": group["lr"],
            }  # fmt: skip
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
            super().load_state_dict(state_dict)
        finally:
            hook.remove()
            del self._override

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a loaded checkpoint, or be made anew by pickle or copy."""
        if "param_groups" not in state:
            return super().__setstate__(state)
        if "_rates" in self.__dict__:
            self._load(state)
        else:
            self._unpickle(dict(state))

    def _load(self, state: dict[str, Any]) -> None:
        groups = state["param_groups"]
        packed = optimizer_state.schedules(groups)
        states = self._rates.unpack([saved and saved["schedulers"] for saved in packed])
        self._rates.check(states, getattr(self, "_override", False))
        if not getattr(self, "_override", False):
            check_cycles(groups, self.param_groups)
        check_numbers([{**self.defaults, **group} for group in groups])
        optimizer_state.release(groups, state["state"], self._scaling.master)
        rates = [float(group["lr"]) for group in groups]
        for new, old, rate in zip(groups, self.param_groups, rates, strict=True):
            new.update(fused=None, foreach=None, differentiable=False, lr=rate)
            new.update(capturable=self._capturable, schedule=old["schedule"])
            for name, value in {**self.defaults, "nesterov": False, "maximize": False}.items():
                new.setdefault(name, value)  # for old checkpoints, as torch does
        super().__setstate__(state)
        self._blank = {}  # something was loaded into them
        self._since = next((s["steps_since"] for s in packed if s is not None), self._since)
        self._rates.load(states)
        self._rates.restart(self.param_groups)
        self._prepare_capture()

    def __getstate__(self) -> dict[str, Any]:
        initial_state.forget(self)
        self._rates.take_written(self.param_groups)
        self._rates.refresh(self.param_groups)
        without_prepared = getattr(self._backend, "without_prepared", lambda state, _: state)
        return {
            **super().__getstate__(),
            "state": without_prepared(self.state, self._rates.program),
            "_backend_name": self._backend_name,
            "_capturable": self._capturable,
            "_schedule_every": self._schedule_every,
            "_since": self._since,
            "_scaling": replace(self._scaling, grad_scale=None, found_inf=None),
            "_chain_states": self._rates.chain_states(),
        }

    def _unpickle(self, state: dict[str, Any]) -> None:
        chain_states = state.pop("_chain_states")
        wrap_step(type(self))
        super().__setstate__(state)
        self._blank = {}
        self._rates = None
        self._choose_backend()
        self._rates = Rates(self.param_groups, self._backend.Program, self._capturable, fresh=False)
        self._rates.load(chain_states)
        self._rates.restart(self.param_groups)
        self._prepare_capture()
