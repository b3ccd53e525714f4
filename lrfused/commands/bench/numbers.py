"""Fill tensors with random numbers at the speed of a copy, the same for every contender."""

from collections.abc import Iterable

import torch

POOL = 1 << 22
_STRIDE = 1_000_003  # between the places where two turns begin: a prime, so that all differ


class Numbers:
    """Hold a pool of numbers, drawn once; each turn fills tensors from another place in it."""

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._pool = torch.randn(POOL, generator=generator).to(dtype)

    def fill(self, tensors: Iterable[torch.Tensor], turn: int) -> None:
        """Fill contiguous tensors, one after another, from the place of this turn."""
        place = turn * _STRIDE % POOL
        for tensor in tensors:
            left = tensor.detach().view(-1)
            while len(left):
                taken = self._pool[place : place + len(left)]
                left[: len(taken)] = taken
                left = left[len(taken) :]
                place = (place + len(taken)) % POOL
