"""The metric of a plateau: read exactly, and averaged over ranks."""

from __future__ import annotations

from typing import Any

import torch

from ..outside_modes import tensor


def as_metric(metrics: Any) -> float:
    """Return one real number of any dtype as a double, exactly.

    Raises ValueError for more than one number.
    """
    if isinstance(metrics, torch.Tensor):
        if metrics.numel() != 1:
            shape = tuple(metrics.shape)
            raise ValueError(f"scheduler.step(metrics=...) must be one number, got shape {shape}")
        return float(metrics.item())
    if getattr(metrics, "size", 1) != 1:
        raise ValueError(
            f"scheduler.step(metrics=...) must be one number, got shape {metrics.shape}"
        )
    return float(metrics.item() if hasattr(metrics, "item") else metrics)


def mean(metric: float | torch.Tensor, process_group: Any) -> float | torch.Tensor:
    """Return the mean of a metric over the ranks of a process group; every rank calls this.

    A tensor is reduced on its device, without a wait. Sums are fp64.
    """
    import torch.distributed as dist  # a torch built without it has no process group

    if isinstance(metric, torch.Tensor):
        one = metric.detach().reshape(1).to(torch.float64)
        both = torch.cat([one, torch.ones_like(one)])
        dist.all_reduce(both, group=process_group)
        return both[0] / both[1]
    both = tensor([metric, 1.0], torch.float64)
    if "cpu" not in dist.get_backend_config(process_group):  # NCCL alone takes no host tensor
        both = both.to(torch.accelerator.current_accelerator())
    dist.all_reduce(both, group=process_group)
    total, ranks = both.tolist()
    return float(total / ranks)
