"""The sets of tensors that the benchmark steps over."""

from dataclasses import dataclass, replace

import torch

from . import shapes
from .numbers import Numbers


@dataclass(frozen=True)
class Case:
    """Hold the shapes and the dtype of a set of tensors."""

    name: str
    title: str
    shapes: list[shapes.Shape]
    dtype: torch.dtype
    zeroed: bool = False  # whether zero_grad is timed too

    @property
    def elements(self) -> int:
        """Count the elements of all tensors."""
        return shapes.elements(self.shapes)

    @property
    def bytes_per_element(self) -> int:
        """Count the bytes that must move: three streams read, two of them written."""
        return 5 * self.dtype.itemsize

    @property
    def bytes_held(self) -> int:
        """Count the bytes of one contender's parameters, gradients and momenta."""
        return 3 * self.dtype.itemsize * self.elements

    def parameters(self) -> list[torch.Tensor]:
        """Draw the parameters that every contender begins with, and allocate their gradients."""
        parameters = [torch.empty(shape, dtype=self.dtype) for shape in self.shapes]
        Numbers(self.dtype, seed=1).fill(parameters, turn=0)
        for parameter in parameters:
            parameter.requires_grad_().grad = torch.zeros_like(parameter, requires_grad=False)
        return parameters

    def shrunk(self, by: int) -> "Case":
        """Return the same case with tensors of a fraction of the size."""
        return replace(self, shapes=shapes.shrunk(self.shapes, by))


_TENSORS = [
    ("resnet50", "ResNet-50", shapes.resnet50()),
    ("vit-l16", "ViT-L/16", shapes.vit_l16()),
    ("gpt2-medium", "GPT-2 medium", shapes.gpt2_medium()),
    ("small", "10,000 tensors of 64", shapes.many_small()),
    ("large", "one tensor of 100 M", shapes.one_large()),
]
_DTYPES = [("", "fp32", torch.float32), ("-bf16", "bf16", torch.bfloat16)]

CASES = {
    name + suffix: Case(name + suffix, f"{title}, {word}", sizes, dtype)
    for name, title, sizes in _TENSORS
    for suffix, word, dtype in _DTYPES
}
GROWING = [
    Case(
        name=f"growth-{count}",
        title=f"{count:,} tensor{'s' * (count > 1)} of 64, fp32",
        shapes=shapes.many_small(count),
        dtype=torch.float32,
        zeroed=True,
    )
    for count in (1, 10, 100, 1_000, 10_000, 100_000)
]
SCALING = [
    Case(f"threads-{count}", f"{count:,} elements, fp32", [(count // 10,)] * 10, torch.float32)
    for count in (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
]
