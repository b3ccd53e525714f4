"""Attributes that other versions of torch gave their schedulers: translated into this one's.

A pickled scheduler has the attributes of the torch that made it, and a loaded state adds its own.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.optim import lr_scheduler

# The attributes that a class's next step reads, and that no default could replace.
NEEDED = {
    "StepLR": ("step_size", "gamma"),
    "MultiStepLR": ("milestones", "gamma"),
    "ConstantLR": ("factor", "total_iters"),
    "LinearLR": ("start_factor", "end_factor", "total_iters"),
    "ExponentialLR": ("gamma",),
    "PolynomialLR": ("total_iters", "power"),
    "CosineAnnealingLR": ("T_max", "eta_min"),
    "CosineAnnealingWarmRestarts": ("T_0", "T_i", "T_mult", "T_cur", "eta_min"),
    "LambdaLR": ("lr_lambdas",),
    "MultiplicativeLR": ("lr_lambdas",),
    "CyclicLR": ("max_lrs", "total_size", "step_ratio", "mode", "gamma", "cycle_momentum"),
    "OneCycleLR": ("total_steps", "cycle_momentum", "_schedule_phases", "_anneal_func_type"),
    "SequentialLR": ("_milestones",),
    "ReduceLROnPlateau": (
        "mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lrs", "eps",
        "best", "num_bad_epochs", "cooldown_counter",
    ),
}  # fmt: skip
_SCALINGS = ("_triangular_scale_fn", "_triangular2_scale_fn", "_exp_range_scale_fn")
_ANNEALINGS = {"_annealing_cos": "cos", "_annealing_linear": "linear"}


def annealing(scheduler: Any) -> str | None:
    """Return a OneCycleLR's annealing strategy; None for a function of the user's own."""
    own = vars(scheduler)
    if "_anneal_func_type" in own or "anneal_func" not in own:
        return str(own.get("_anneal_func_type", ""))
    return _ANNEALINGS.get(getattr(own["anneal_func"], "__name__", ""))  # up to torch 2.0


def translate(scheduler: Any, groups: list[dict[str, Any]]) -> None:
    """Put the attributes of this version of torch into a scheduler's copy.

    Raises ValueError naming the attributes that are missing.
    """
    own, name = vars(scheduler), type(scheduler).__name__
    if isinstance(scheduler, lr_scheduler.OneCycleLR) and "anneal_func" in own:
        own["_anneal_func_type"] = annealing(scheduler)
        del own["anneal_func"]
    if isinstance(scheduler, lr_scheduler.MultiStepLR) and isinstance(own.get("milestones"), list):
        own["milestones"] = Counter(own["milestones"])  # up to torch 1.2
    missing = [key for key in NEEDED.get(name, ()) if key not in own]
    if not isinstance(scheduler, lr_scheduler.ChainedScheduler) and "last_epoch" not in own:
        missing.append("last_epoch")
    if missing:
        raise ValueError(
            f"fuse(scheduler=...): {name} has no {', '.join(missing)}, so torch cannot step it "
            f"either; construct a new {name} and load the old one's state into it"
        )
    if isinstance(scheduler, lr_scheduler.CyclicLR):
        _translate_cyclic(scheduler, own)
    elif isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        own.setdefault("default_min_lr", None)
        own.setdefault("mode_worse", float("inf" if own["mode"] == "min" else "-inf"))
    if name not in ("SequentialLR", "ChainedScheduler", "ReduceLROnPlateau"):
        own.setdefault("_step_count", max(own["last_epoch"], 0) + 1)
        own.setdefault("base_lrs", [group.get("initial_lr", group["lr"]) for group in groups])


def _translate_cyclic(scheduler: Any, own: dict[str, Any]) -> None:
    """Translate a CyclicLR's function: an attribute up to torch 1.12, since then a method."""
    function = own.pop("scale_fn", None)
    own.setdefault("_scale_fn_custom", None)
    if function is not None and getattr(function, "__name__", "") not in _SCALINGS:
        own["_scale_fn_custom"] = function
    own.setdefault("use_beta1", False)
    if "_scale_fn_ref" not in own or "scale_mode" not in own:  # later edits do not rebind it
        own.setdefault("scale_mode", "cycle")
        scheduler._init_scale_fn()


def translate_state(state: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return a state that another version of torch saved, with the entries of this one's.

    own: the state of the scheduler that it is for; entries that are new in torch are taken from it.
    """
    new: dict[str, Any] = {key: own[key] for key in ("use_beta1", "_schedule_phases") if key in own}
    if "anneal_func" in state and "_anneal_func_type" not in state:
        function = getattr(state["anneal_func"], "__name__", "")
        new["_anneal_func_type"] = _ANNEALINGS.get(function)
    return {**new, **state}
