"""The modules of benchmarks/on_gpu, and events as a GPU's profiler records them."""

import sys
from pathlib import Path

from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from on_gpu import cases, commands, contenders, machine, parts, results, timings
from on_gpu.events import Activity, flush_of, steps_of

__all__ = [
    "FILL", "FLUSHES", "RANGE", "STEP", "Activity", "cases", "commands", "contenders", "event",
    "flush_of", "machine", "parts", "results", "round_of", "steps_of", "timings",
]  # fmt: skip

FILL = "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<unsigned char>>"
STEP = "lrfused::cuda::step_kernel"
RANGE = "Optimizer.step#FusedDecaySGD.step"


def event(name, us, device=DeviceType.CUDA, kind="kernel", annotation=False, at=100.0):
    return Activity.of(
        FunctionEvent(
            1, name, thread=0, start_us=at, end_us=at + us, device_type=device,
            activity_type=kind, is_user_annotation=annotation,
        )
    )  # fmt: skip


def round_of(*work):
    """List the events of one flush and one step, with what else a trace has."""
    return [
        event(FILL, 90.0),
        event(RANGE, 40.0, kind="gpu_user_annotation", annotation=True),
        event(RANGE, 60.0, device=DeviceType.CPU, kind="user_annotation", annotation=True),
        event("cudaLaunchKernel", 5.0, device=DeviceType.CPU, kind="cuda_runtime"),
        event("Context Sync", 7.0, kind="cuda_sync"),
        *work,
    ]


FLUSHES = [event(FILL, 90.0), event("cudaLaunchKernel", 5.0, DeviceType.CPU, "cuda_runtime")] * 3
