"""Step over small tensors on the CUDA backend, for compute-sanitizer to watch."""

import torch

from lrfused import FusedDecaySGD, ReduceLROnPlateau, StepLR

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SIZES = [1, 7, 33, 1025, 70_000, *[3] * 250]  # with four dtypes, more than a launch takes along


def main() -> None:
    """Make three steps with each kind of table, and of scaling."""
    params = [
        torch.randn(n, device=DEVICE, dtype=dtype).requires_grad_()
        for n in SIZES
        for dtype in DTYPES
    ]
    for p in params:
        p.grad = torch.randn(p.numel() + 1, device=DEVICE, dtype=p.dtype)[1:]  # misaligned
    few = params[: 4 * 5]
    runs = [
        (params, {}),
        (few, {}),
        (params, {"max_grad_norm": 1.0}),
        (params, {"master_weights": True}),
        (few, {"master_weights": True}),
        (few[1::4], {"master_weights": "remainder", "max_grad_norm": 1.0}),
    ]
    for stepped, more in runs:
        optimizer = FusedDecaySGD(
            stepped, lr=0.1, momentum=0.9, weight_decay=0.01, backend="cuda",
            schedule=[StepLR(2), ReduceLROnPlateau(patience=0)], **more,
        )  # fmt: skip
        for step in range(3):
            optimizer.step()
            optimizer.scheduler.step(torch.tensor(float(step), device=DEVICE))
        print("sanitized:", more, optimizer.scheduler.get_last_lr())


if __name__ == "__main__":
    main()
