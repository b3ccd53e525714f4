"""Checkpoints of optimizers that are no SGD: recognized by their keys, and refused."""

from __future__ import annotations

from typing import Any

# In the groups of torch.optim.SGD since its first release; no other optimizer has them all.
_SGD = ("lr", "momentum", "dampening", "weight_decay")

_SHARED = {
    "params", "param_names", "nesterov", "maximize", "foreach", "fused", "differentiable",
    "capturable", *_SGD,
}  # fmt: skip

# Keys in the groups of other optimizers; the first row of which a group has all names it.
_OTHERS = {
    "Adam or AdamW": {"betas", "eps", "amsgrad"},
    "NAdam": {"betas", "eps", "momentum_decay"},
    "RAdam": {"betas", "eps", "decoupled_weight_decay"},
    "Adamax or SparseAdam": {"betas", "eps"},
    "RMSprop": {"alpha", "eps", "centered"},
    "Adagrad": {"lr_decay", "initial_accumulator_value"},
    "Rprop": {"etas", "step_sizes"},
    "Adadelta": {"rho", "eps"},
    "ASGD": {"lambd", "alpha", "t0"},
    "Adafactor": {"beta2_decay", "d"},
    "Muon": {"ns_coefficients", "ns_steps"},
    "LBFGS": {"max_iter", "history_size"},
}


def refuse(groups: list[dict[str, Any]]) -> None:
    """Raise ValueError if a checkpoint's groups are not those of an SGD."""
    for i, group in enumerate(groups):
        missing = [key for key in _SGD if key not in group]
        if missing:
            found = sorted(group.keys() - _SHARED)
            raise ValueError(
                f"the checkpoint is that of {_name(group)}, not of SGD: param_groups[{i}] has no "
                f"{_words(missing)}, but {_words(found) or 'nothing else'}"
            )


def _name(group: dict[str, Any]) -> str:
    for name, keys in _OTHERS.items():
        if keys <= group.keys():
            decoupled = group.get("decoupled_weight_decay") if "amsgrad" in keys else None
            return {True: "AdamW", False: "Adam"}.get(decoupled, name)  # type: ignore[arg-type]
    return "another optimizer"


def _words(keys: list[str]) -> str:
    return ", ".join(map(repr, keys))
