"""Train a small network with each of the six schedules, in lock step with torch.

Two copies of one network start from the same seed and see the same batches. One is trained by
`lrfused.FusedDecaySGD` with the schedule inside, the other by `torch.optim.SGD` with torch's own
scheduler beside it, each from the gradients of its own backward pass. After every step each
weight, each momentum and the rate of both are compared as integers.
"""

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler

import lrfused

from . import curves

LR, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
BATCH = 64


def strategies(epochs: int) -> dict[str, dict]:
    """Return the six schedules and their arguments, scaled to a run of `epochs` epochs."""
    third = max(1, epochs // 3)
    warm_up = max(1, epochs // 5)

    def warm_up_then_inverse_root(epoch: int) -> float:
        return float(min((epoch + 1) / warm_up, (warm_up / (epoch + 1)) ** 0.5))

    return {
        "StepLR": {"step_size": third, "gamma": 0.2},
        "MultiStepLR": {"milestones": [max(1, epochs // 2), max(1, epochs * 3 // 4)], "gamma": 0.1},
        "ExponentialLR": {"gamma": 0.01 ** (1 / epochs)},
        "CosineAnnealingLR": {"T_max": epochs, "eta_min": 1e-3},
        "LambdaLR": {"lr_lambda": warm_up_then_inverse_root},
        "ReduceLROnPlateau": {"factor": 0.3, "patience": 1, "threshold": 0.02, "min_lr": 1e-4},
    }


@dataclass(frozen=True)
class Digits:
    """Hold scikit-learn's 1,797 scanned digits, split by class into three sets."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @classmethod
    def load(cls, seed: int) -> "Digits":
        """Read the images and split them 70 : 10 : 20."""
        pixels, labels = load_digits(return_X_y=True)
        images = torch.from_numpy(pixels).float().div_(16).sub_(0.3).view(-1, 1, 8, 8)
        classes = torch.from_numpy(labels).long()
        rest, test = train_test_split(
            range(len(labels)), test_size=0.2, stratify=labels, random_state=seed
        )
        train, validation = train_test_split(
            rest, test_size=0.125, stratify=labels[rest], random_state=seed
        )
        return cls(*((images[part], classes[part]) for part in (train, validation, test)))

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch's batches in an order drawn from `seed`."""
        images, labels = self.train
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        for part in order.split(BATCH):
            yield images[part], labels[part]

    @property
    def steps(self) -> int:
        """Count the batches of an epoch."""
        return -(-len(self.train[1]) // BATCH)


def network(seed: int) -> nn.Sequential:
    """Make a convolutional network for 8 x 8 images, its weights drawn from `seed`."""
    torch.manual_seed(seed)

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 8, stride=1),
        *block(8, 16, stride=2),
        *block(16, 32, stride=2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


@dataclass
class Trainee:
    """Train one copy of the network; keep the rates used and the times of the steps."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    end_epoch: Callable[[Tensor], object]
    rates: list[float] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)  # of all steps but an epoch's last
    last_ms: list[float] = field(default_factory=list)  # of the last, with the schedule's step

    @property
    def rate(self) -> float:
        """Read the rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def backward(self, images: Tensor, labels: Tensor) -> None:
        """Compute the gradients of a batch."""
        self.optimizer.zero_grad()
        cross_entropy(self.model(images), labels).backward()
        self.rates.append(self.rate)

    def step(self) -> None:
        """Step the optimizer."""
        self.step_ms.append(_milliseconds(self.optimizer.step))

    def last_step(self, validation: tuple[Tensor, Tensor]) -> Tensor:
        """Make the last optimizer step of an epoch, then the schedule's; return the loss."""
        took = _milliseconds(self.optimizer.step)
        loss, _ = self.evaluate(*validation)
        self.last_ms.append(took + _milliseconds(self.end_epoch, loss))
        return loss

    def mean_step_ms(self, steps: int) -> float:
        """Return the mean of the two medians, weighted for an epoch of `steps` steps."""
        return ((steps - 1) * median(self.step_ms) + median(self.last_ms)) / steps

    @torch.no_grad()
    def evaluate(self, images: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        """Return the loss, and the accuracy in percent."""
        self.model.eval()
        scores = self.model(images)
        self.model.train()
        right = (scores.argmax(1) == labels).sum().item()
        return cross_entropy(scores, labels), 100 * right / len(labels)


def _milliseconds(call: Callable[..., object], *args: Tensor) -> float:
    begin = time.perf_counter()
    call(*args)
    return (time.perf_counter() - begin) * 1e3


def trainees(name: str, options: dict, steps: int, seed: int) -> tuple[Trainee, Trainee]:
    """Make the two copies: lrfused's, whose schedule decays once in `steps` steps, and torch's."""
    on_plateau = name == "ReduceLROnPlateau"

    model = network(seed)
    fused = lrfused.FusedDecaySGD(
        model.parameters(),
        lr=LR,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        schedule=getattr(lrfused, name)(**options),
        schedule_every=steps,
    )
    ours = Trainee(model, fused, fused.scheduler.step if on_plateau else lambda loss: None)

    model = network(seed)
    sgd = torch.optim.SGD(
        model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, foreach=False
    )
    scheduler = getattr(lr_scheduler, name)(sgd, **options)
    theirs = Trainee(model, sgd, scheduler.step if on_plateau else lambda loss: scheduler.step())
    return ours, theirs


def first_difference(ours: Trainee, theirs: Trainee) -> str | None:
    """Return the name of the first tensor or rate whose bits differ, or None.

    Gradients come first: if they differ and no weight did before, the backward passes differ, and
    not the optimizers.
    """
    pairs = list(zip(ours.model.named_parameters(), theirs.model.parameters(), strict=True))
    for (name, p), q in pairs:
        if not _same_bits(p.grad, q.grad):
            return f"the gradient of {name}"
    for (name, p), q in pairs:
        momenta = (
            side.optimizer.state[x]["momentum_buffer"] for side, x in ((ours, p), (theirs, q))
        )
        if not _same_bits(*momenta):
            return f"the momentum of {name}"
        if not _same_bits(p, q):
            return f"the weight {name}"
    if struct.pack("d", ours.rate) != struct.pack("d", theirs.rate):
        return f"the rate, {ours.rate!r} and {theirs.rate!r}"
    return None


def _same_bits(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return torch.equal(a.detach().view(torch.int32), b.detach().view(torch.int32))


@dataclass(frozen=True)
class Outcome:
    """Hold the results of one strategy's run."""

    curve: curves.Curve
    difference: str | None
    accuracy: float
    ours_ms: float
    theirs_ms: float
    compared: int


def train(
    name: str, options: dict, digits: Digits, epochs: int, seed: int, report: Callable[..., object]
) -> Outcome:
    """Train both copies with one strategy, comparing them after every step."""
    ours, theirs = trainees(name, options, digits.steps, seed)
    sides = [ours, theirs]
    difference, compared = None, 0
    for epoch in range(epochs):
        for step, (images, labels) in enumerate(digits.batches(seed + epoch), start=1):
            for side in sides:
                side.backward(images, labels)
            sides.reverse()  # neither is always the first, on a cold cache
            for side in sides:
                if step < digits.steps:
                    side.step()
                else:
                    loss = side.last_step(digits.validation)
            if difference is None:
                compared += 1
                if what := first_difference(ours, theirs):
                    difference = f"{what}, after step {step} of epoch {epoch + 1}"
        report(epoch + 1, ours.rates[-1], float(loss))

    _, accuracy = ours.evaluate(*digits.test)
    curve = curves.Curve(
        name=name,
        caption=_caption(options),
        fused=[*ours.rates, ours.rate],
        torch=[*theirs.rates, theirs.rate],
        steps_per_epoch=digits.steps,
    )
    weights = sum(p.numel() for p in ours.model.parameters())
    return Outcome(
        curve=curve,
        difference=difference,
        accuracy=accuracy,
        ours_ms=ours.mean_step_ms(digits.steps),
        theirs_ms=theirs.mean_step_ms(digits.steps),
        compared=compared * (2 * weights + 1),
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: on a network this small, several only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def run(*, epochs: int, out: Path, seed: int) -> int:
    """Train with every strategy, print the table, draw the rates; return 1 if bits differ."""
    console = Console()
    digits = Digits.load(seed)
    size = sum(p.numel() for p in network(seed).parameters())
    console.print(
        f"{len(digits.train[1]):,} digits, {size:,} parameters, {epochs} epochs of {digits.steps} "
        f"steps on one thread; each strategy twice, by lrfused and by torch {torch.__version__}",
        highlight=False,
    )
    outcomes = []
    with _progress(console) as progress:
        for name, options in strategies(epochs).items():
            task = progress.add_task(name, total=epochs, lr=LR, loss=float("nan"))

            def report(epoch: int, lr: float, loss: float, task: TaskID = task) -> None:
                progress.update(task, completed=epoch, lr=lr, loss=loss)

            outcomes.append(train(name, options, digits, epochs, seed, report))

    console.print(_table(outcomes))
    for outcome in outcomes:
        if outcome.difference:
            console.print(f"[red]{outcome.curve.name}: first to differ is {outcome.difference}")
    compared = sum(outcome.compared for outcome in outcomes)
    console.print(f"Compared as integers: {compared:,} weights, momenta and rates.")
    identical = sum(outcome.difference is None for outcome in outcomes)
    steps = len(outcomes) * epochs * digits.steps
    title = f"{len(outcomes)} schedules, {steps:,} steps: " + (
        "each rate and each weight equals torch's, bit for bit"
        if identical == len(outcomes)
        else f"bit for bit as torch's in {identical}"
    )
    curves.draw([outcome.curve for outcome in outcomes], out, title=title)
    console.print(f"Rates drawn in {out}")
    return 0 if identical == len(outcomes) else 1


def _caption(options: dict) -> str:
    plain = (
        value.__name__.replace("_", " ")
        if callable(value)
        else f"{name}={value:.4g}"
        if isinstance(value, float)
        else f"{name}={value}"
        for name, value in options.items()
    )
    return ", ".join(plain)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<17}"),
        BarColumn(bar_width=24),
        TextColumn("epoch {task.completed:>2}/{task.total}"),
        TextColumn("lr {task.fields[lr]:.2e}"),
        TextColumn("validation loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
        console=console,
    )


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(caption="ms of one optimizer step, the schedule's share included")
    table.add_column("strategy", no_wrap=True)
    for heading in ("final lr", "test\naccuracy", "lrfused\nms", "torch\nms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bit-\nidentical", no_wrap=True)
    for outcome in outcomes:
        table.add_row(
            outcome.curve.name,
            f"{outcome.curve.fused[-1]:.3e}",
            f"{outcome.accuracy:.1f} %",
            f"{outcome.ours_ms:.3f}",
            f"{outcome.theirs_ms:.3f}",
            "[red]no" if outcome.difference else "[green]yes",
        )
    return table
