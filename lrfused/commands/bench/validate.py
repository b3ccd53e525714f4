"""Compare the results of contenders before any of them is timed."""

import math
from dataclasses import dataclass

import torch

from .cases import Case
from .contenders import Stepper, Unable, must_be_equal, oracle
from .numbers import Numbers

STEPS = 3  # the rate changes after the second
PIECE = 1 << 16  # elements compared at a time: in a core's cache
INTEGER = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
# Wide enough for the distance of any two.
WIDER_INTEGER = {torch.float32: torch.int64, torch.bfloat16: torch.int32}
WIDER = {torch.float32: torch.float64, torch.bfloat16: torch.float32}


@dataclass(frozen=True)
class Distance:
    """Hold the distance of a contender's parameters and momenta from the oracle's.

    `share` is the largest difference, as a share of the largest parameter or momentum.
    """

    oracle: str
    max_ulp: int
    differing: int
    share: float


class Truth:
    """Hold the oracle's parameters and momenta after some steps.

    `spread` is how much larger the steps may make a difference that rounding made.
    """

    def __init__(
        self, title: str, dtype: torch.dtype, oracle: str, stepper: Stepper, spread: int = 1
    ) -> None:
        self.title = title
        self.dtype = dtype
        self.oracle = oracle
        self.spread = spread
        self.gradients = Numbers(dtype, seed=2)
        self._results = self._run(stepper)
        self._largest = [max(float(x.abs().max()) for x in kind) for kind in self._results]

    @classmethod
    def of(cls, case: Case) -> "Truth":
        """Make the oracle's steps on a case."""
        name, make = oracle(case.dtype)
        return cls(case.title, case.dtype, name, make(case))

    @property
    def bound(self) -> float:
        """Return the largest share that rounding alone explains: two units in each step, spread."""
        return 2 * STEPS * self.spread * torch.finfo(self.dtype).eps

    def check(self, name: str, stepper: Stepper) -> Distance:
        """Let a contender make the same steps, and return its distance.

        Raises AssertionError if a contender that must have the oracle's bits has others, Unable if
        the distance is more than rounding.
        """
        found = self._distance(self._run(stepper))
        if found.differing and name in must_be_equal(self.dtype):
            raise AssertionError(f"{self.title}: {name} is not {self.oracle} to the bit: {found}")
        if not found.share <= self.bound:
            raise Unable(
                f"computes something else: {found.differing:,} values differ, by up to "
                f"{found.share:.2g} of the largest"
            )
        return found

    def _run(self, stepper: Stepper) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        for turn in range(STEPS):
            stepper.give(self.gradients, turn)
            stepper.step()
        return stepper.results()

    def _distance(self, results: tuple[list[torch.Tensor], list[torch.Tensor]]) -> Distance:
        largest, differing, share = 0, 0, 0.0
        integer, wider = INTEGER[self.dtype], WIDER[self.dtype]
        for theirs, ours, scale in zip(results, self._results, self._largest, strict=True):
            for got, want in zip(theirs, ours, strict=True):
                got = got.to(self.dtype)  # one contender keeps its momentum in more bits
                if torch.equal(got.view(integer), want.view(integer)):
                    continue
                pieces = (x.reshape(-1).split(PIECE) for x in (got, want))
                for a, b in zip(*pieces, strict=True):
                    if torch.equal(a.view(integer), b.view(integer)):
                        continue
                    gap = (_ordered(a) - _ordered(b)).abs_()
                    largest = max(largest, int(gap.max()))
                    differing += int(gap.count_nonzero())
                    apart = float((a.to(wider) - b.to(wider)).abs_().max())
                    share = max(share, apart / scale) if apart == apart else math.nan
        return Distance(self.oracle, largest, differing, share)


def _ordered(values: torch.Tensor) -> torch.Tensor:
    """Map floats to integers in the same order, one apart where the floats are neighbours."""
    bits = values.view(INTEGER[values.dtype])
    rest = torch.iinfo(bits.dtype).max  # all bits but the sign
    negative = bits >> (8 * bits.itemsize - 1)  # -1 or 0
    return negative.bitwise_and_(rest).bitwise_xor_(bits).to(WIDER_INTEGER[values.dtype])
