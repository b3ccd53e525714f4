"""Follow each torch.optim.SGD: who makes its steps, how many, and how long they take."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

from .fused import FusedSteps, Refused
from .oracle import Expected
from .settings import Settings
from .tally import Tally

_OWN_STEP = "a step of its own"


class Followed:
    """Make the steps of one optimizer, by lrfused unless torch must, and count them."""

    def __init__(self, name: str, other: str | None) -> None:
        self.tally = Tally(name, other)
        self._fused: FusedSteps | None = None

    def step(self, optimizer: Any, torchs: Callable[[Any], Any], settings: Settings) -> None:
        """Make one step; `torchs` is torch's own."""
        tally = self.tally
        tally.steps += 1
        expected = None
        if tally.other is None and settings.is_checked(tally.steps):
            try:
                expected = Expected(optimizer)
            except Refused as reason:
                self._leave_to_torch(reason)
        began = time.perf_counter()
        if tally.other is None:
            try:
                self._step(optimizer)
            except Refused as reason:
                self._leave_to_torch(reason)
                expected = None
        if tally.other is not None:
            torchs(optimizer)
        seconds = time.perf_counter() - began
        if tally.steps == 1:  # in which a backend is tested and torch makes lazy imports
            tally.first_step = seconds
        else:
            tally.later_steps += seconds
        if expected is not None:
            self._compare(expected, optimizer)

    def _leave_to_torch(self, reason: Refused) -> None:
        """Let torch make all later steps: the reason is not likely to change."""
        self.tally.other, self.tally.backend = f"torch: {reason}", ""
        self._fused = None

    def _step(self, optimizer: Any) -> None:
        if self._fused is None or not self._fused.fits(optimizer):
            self._fused = FusedSteps(optimizer)
        self._fused.step(optimizer)
        self.tally.backend = self._fused.backend

    def _compare(self, expected: Expected, optimizer: Any) -> None:
        tally = self.tally
        count, first = expected.compare(optimizer)
        tally.checked += 1
        tally.differing += count
        if count and not tally.first:
            tally.first = f"step {tally.steps} of {tally.name}, {first}"


class Registry:
    """Hold a Followed for each optimizer as long as it lives, and the tallies of all.

    other: who makes all steps, if not lrfused.
    """

    def __init__(self, other: str | None) -> None:
        self.other = other
        self._tallies: list[Tally] = []
        # By id: a subclass may have made its optimizers unhashable, or equal to each other.
        self._followed: dict[int, tuple[weakref.ref[Any], Followed]] = {}

    def clear(self) -> None:
        """Forget all; for a forked process, whose parent has counted them."""
        self._tallies = []
        self._followed = {}

    @property
    def tallies(self) -> list[Tally]:
        """Return the tallies of all that made steps, or have a step of their own."""
        call_torchs = {tally.name for tally in self._tallies if tally.steps}
        return [t for t in self._tallies if t.steps or t.name not in call_torchs]

    def note_own_step(self, optimizer: Any) -> None:
        """Note an optimizer whose step may never call torch.optim.SGD's."""
        self._add(optimizer, _OWN_STEP)

    def at_step(self, optimizer: Any) -> Followed:
        """Return the Followed of an optimizer that has come to torch.optim.SGD's step."""
        followed = self._find(optimizer)
        if followed is None:
            return self._add(optimizer, self.other)
        if followed.tally.other is _OWN_STEP:  # which calls torch's
            followed.tally.other = self.other
        return followed

    def add_zero_grad(self, optimizer: Any, seconds: float) -> None:
        """Count the time of a zero_grad, unless the optimizer has made no step yet."""
        followed = self._find(optimizer)
        if followed is not None:
            followed.tally.zero_grad += seconds

    def _find(self, optimizer: Any) -> Followed | None:
        known = self._followed.get(id(optimizer))
        return None if known is None else known[1]

    def _add(self, optimizer: Any, other: str | None) -> Followed:
        followed, known, key = (
            Followed(type(optimizer).__name__, other),
            self._followed,
            id(optimizer),
        )
        known[key] = weakref.ref(optimizer, lambda _: known.pop(key, None)), followed
        self._tallies.append(followed.tally)
        return followed
