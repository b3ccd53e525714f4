"""Time the optimizer's part of real training: zero_grad, the step and its schedule."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.nn.functional import mse_loss

from .contenders import FOR_LOOP, LRFUSED, OWN, Maker, OfTorch, reason, without_decay
from .models import Lesson
from .numbers import Numbers
from .rivals import HEAVYBALL, IN_LOOPS
from .rounds import row
from .shapes import Shape
from .timing import Timing, collector_off, orders
from .validate import Truth

CONTENDERS: dict[str, Maker] = {**OWN, **IN_LOOPS}
# Those of another update, and the oracle of that one: its name and its maker.
OTHERWISE: dict[str, tuple[str, Maker]] = {
    HEAVYBALL: (f"{FOR_LOOP}, no weight decay", without_decay)
}
SPREAD = 4  # a difference of parameters passes through the network into the gradients
PARTS = ("zero_grad", "step", "both", "iteration")
WARM_UP = 20  # iterations in which compilers compile whatever is left
IN_A_ROW = 3  # timed iterations after one that fills the caches again
MIN_ROUNDS, MAX_ROUNDS = 3, 400


class OfModel:
    """Hold the tensors of a model."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters: list[torch.Tensor] = list(model.parameters())

    @property
    def shapes(self) -> list[Shape]:
        """List the tensors' shapes."""
        return [tuple(p.shape) for p in self._parameters]

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of all tensors."""
        return self._parameters[0].dtype

    def parameters(self) -> list[torch.Tensor]:
        """Return the parameters, as yet without gradients."""
        return self._parameters


class Training:
    """Train a model with one contender."""

    def __init__(self, lesson: Lesson, make: Maker) -> None:
        model, self._inputs = lesson.begin()
        contender = make(OfModel(model))
        assert isinstance(contender, OfTorch)
        self.note = contender.note
        self._model = model
        self._wanted = torch.full_like(model(self._inputs), 0.5, requires_grad=False)
        self._contender = contender
        self._zero_grad = contender.optimizer.zero_grad
        self._step = contender.step

    def iterate(self) -> tuple[int, int, int, int]:
        """Train one iteration; return the nanoseconds of each of the `PARTS`."""
        now = time.perf_counter_ns
        begin = now()
        self._zero_grad()
        zeroed = now()
        mse_loss(self._model(self._inputs), self._wanted).backward()
        graded = now()
        self._step()
        end = now()
        return zeroed - begin, end - graded, zeroed - begin + end - graded, end - begin

    def give(self, numbers: Numbers, turn: int) -> None:
        """Do nothing: the backward pass gives the gradients."""

    def step(self) -> None:
        """Train one iteration."""
        self.iterate()

    def results(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the parameters and the momenta."""
        return self._contender.results()

    def settle(self) -> None:
        """Train the first, slower iterations, untimed."""
        for _ in range(WARM_UP):
            self.iterate()

    def close(self) -> None:
        """Free whatever the contender holds beyond its tensors."""
        self._contender.close()


def measure(lesson: Lesson, seconds: float, names: Iterable[str] = CONTENDERS) -> dict[str, Any]:
    """Train a model with each contender, in rounds, and time the parts of an iteration.

    Returns a row for every name: quartiles in milliseconds, or the reason why there are none.
    Raises AssertionError if a contender that must have the oracle's bits has others.
    """
    truths: dict[str, Truth] = {}
    rows: dict[str, dict[str, Any]] = {}
    trained: dict[str, Training] = {}
    for name in names:
        oracle, make = OTHERWISE.get(name, (FOR_LOOP, OWN[FOR_LOOP]))
        if oracle not in truths:
            truths[oracle] = Truth(
                lesson.title, lesson.dtype, oracle, Training(lesson, make), SPREAD
            )
        try:
            training = Training(lesson, CONTENDERS[name])
            distance = truths[oracle].check(name, training)
            training.settle()
        except Exception as error:
            rows[name] = {"name": name, "not_timed": reason(name, error)}
            continue
        rows[name] = row(name, distance, training.note)
        trained[name] = training
    for name, parts in _interleave(trained, seconds).items():
        rows[name] |= {part: asdict(timing) for part, timing in parts.items()}
    for training in trained.values():
        training.close()
    model, _ = lesson.begin()
    return {
        "case": lesson.name,
        "title": lesson.title,
        "threads": torch.get_num_threads(),
        "tensors": len(list(model.parameters())),
        "elements": sum(p.numel() for p in model.parameters()),
        "rows": list(rows.values()),
    }


def middle(visits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the visit in which lrfused took its median time, of several to the same model.

    The noise of a shared machine lasts for minutes, so that a single visit may fall into it whole.
    The result's `visits` are the medians of zero_grad and step together, by the contender's name.
    """
    times = [
        {row["name"]: row["both"]["median"] for row in visit["rows"] if not row["not_timed"]}
        for visit in visits
    ]
    timed = [index for index in range(len(visits)) if LRFUSED in times[index]]
    order = sorted(timed or [0], key=lambda index: times[index].get(LRFUSED, 0.0))
    return visits[order[len(order) // 2]] | {"visits": times}


def _interleave(trained: dict[str, Training], seconds: float) -> dict[str, dict[str, Timing]]:
    samples: dict[str, list[tuple[int, ...]]] = {name: [] for name in trained}
    with collector_off():
        for names in orders(trained, seconds, MIN_ROUNDS, MAX_ROUNDS):
            for name in names:
                trained[name].iterate()
                samples[name] += [trained[name].iterate() for _ in range(IN_A_ROW)]
    return {
        name: {
            part: Timing.of(sample[index] / 1e6 for sample in found)
            for index, part in enumerate(PARTS)
        }
        for name, found in samples.items()
    }
