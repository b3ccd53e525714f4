"""An optimizer's checkpoint: checked and converted before any of it is loaded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.masters import KEYS, has_master
from ..checks.refusals import check_buffer, check_master
from ..outside_modes import outside_modes
from . import foreign

_MASTERS = [key for key in KEYS.values() if key is not None]
_OURS = ("momentum_buffer", *_MASTERS)


@dataclass(frozen=True, slots=True)
class Held:
    """Hide a tensor from load_state_dict, which casts tensors to the parameter's dtype."""

    tensor: Tensor


def check_form(state: Any) -> None:
    """Raise ValueError unless this has the form of an optimizer's checkpoint."""
    rule = "state_dict must be an optimizer's checkpoint: "
    if not isinstance(state, dict) or not {"state", "param_groups"} <= set(state):
        raise ValueError(
            f"{rule}a dict with 'state' and 'param_groups', got {type(state).__name__}"
        )
    if not isinstance(state["state"], dict):
        raise ValueError(f"{rule}'state' is {type(state['state']).__name__}, not a dict")
    if not isinstance(state["param_groups"], list):
        raise ValueError(
            f"{rule}'param_groups' is {type(state['param_groups']).__name__}, not a list"
        )
    for i, group in enumerate(state["param_groups"]):
        if not isinstance(group, dict) or not isinstance(group.get("params"), list):
            raise ValueError(f"{rule}param_groups[{i}] is no dict with a list 'params'")
    for key, entry in state["state"].items():
        if isinstance(key, int) and not isinstance(entry, dict):  # a hook may add others
            raise ValueError(f"{rule}state[{key!r}] is {type(entry).__name__}, not a dict")


def hold(_optimizer: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Hide the tensors whose dtype is not the parameter's: the last load_state_dict pre-hook.

    Raises ValueError for the checkpoint of an optimizer that is no SGD.
    """
    foreign.refuse(state_dict["param_groups"])

    def held(own: Any) -> Any:
        if not isinstance(own, dict):
            return own
        return {k: Held(v) if k in _OURS and isinstance(v, Tensor) else v for k, v in own.items()}

    return {**state_dict, "state": {i: held(own) for i, own in state_dict["state"].items()}}


@outside_modes
def release(
    groups: list[dict[str, Any]], state: dict[Tensor, dict[str, Any]], master: str | None
) -> None:
    """Put hidden tensors back, each in the dtype that the step needs.

    Raises TypeError for a buffer or master that does not fit its parameter, ValueError for masters
    of the other kind.
    """
    for g, group in enumerate(groups):
        for p in group["params"]:
            if p not in state:
                continue
            own, mastered = state[p], has_master(p, master)
            for key, value in own.items():
                if isinstance(value, Held):
                    dtype = _dtype(key, p, mastered)
                    own[key] = value.tensor.to(dtype=dtype, device=p.device)
            check_buffer(g, p, own.get("momentum_buffer"), mastered)
            for key in _MASTERS:
                if own.get(key) is not None:
                    _check_or_drop(g, p, own, key, master if mastered else None)


def _dtype(key: str, param: Tensor, mastered: bool) -> torch.dtype:
    if key == "master_remainder":
        return torch.int16
    return torch.float32 if mastered or key == "master" else param.dtype


def _check_or_drop(g: int, p: Tensor, own: dict[str, Any], key: str, wanted: str | None) -> None:
    if wanted == key:
        check_master(g, p, key, own[key])
    elif wanted is None:
        del own[key]
        warnings.warn(
            "the checkpoint has master weights where this optimizer has none, being of other "
            "parameters or without master_weights: they are left out",
            stacklevel=2,
        )
    else:
        raise ValueError(
            f"the checkpoint has {key!r}, and this optimizer's master_weights keep {wanted!r}"
        )


def schedules(groups: list[dict[str, Any]]) -> list[Any]:
    """Return each group's 'schedule' entry, or None.

    Raises ValueError for an entry that lrfused did not write. Warns, and returns None, where
    another optimizer went on from the checkpoint.
    """
    packed = [group.get("schedule") for group in groups]
    for saved in packed:
        if saved is not None and not (isinstance(saved, dict) and "schedulers" in saved):
            raise ValueError(f"the checkpoint's 'schedule' is not one of lrfused's: {saved!r}")
        if saved is not None and type(saved.get("steps_since")) is not int:
            raise ValueError(
                "the checkpoint's schedule has no integer 'steps_since', got "
                f"{saved.get('steps_since')!r}"
            )
    for i, (group, saved) in enumerate(zip(groups, packed, strict=True)):
        now = float(group["lr"])
        if saved is not None and saved.get("lr", now) != now == now:  # a NaN is left to itself
            warnings.warn(
                f"param_groups[{i}] of the checkpoint was saved at lr={saved['lr']} and has "
                f"lr={group['lr']}: another optimizer went on from there, so its schedule's "
                "state is left out; load the scheduler's own",
                stacklevel=2,
            )
            packed[i] = None
    return packed
