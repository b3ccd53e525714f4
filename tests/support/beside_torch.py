"""A FusedDecaySGD beside torch's for-loop and schedulers, and all that a user may do to both.

`BesideTorch` is a state machine of hypothesis: it draws what the user does, and after each action
compares parameters, momentum buffers, rates, settings and epochs of the two, bit for bit.

Left out: a group taken out of `param_groups`. FusedDecaySGD refuses the next step in words of its
own, whereas torch goes on with the groups that are left.
"""

import copy
import io
import math
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from cases import COMPOSITIONS, PLATEAUS, STEPPED, WITH_PLATEAU, Schedule
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import Tensor

from lrfused import FusedDecaySGD, fuse
from support.bits import assert_same_rates
from support.loops import Torchs, end_of, leaves
from support.twin import assert_same_state, leaf, numbers, same_layout

CHAINS: dict[str, list[Schedule]] = {
    "none": [],
    **{str(case): [case] for case in [*STEPPED, *PLATEAUS] if case.groups is None},
    **COMPOSITIONS,
    **WITH_PLATEAU,
}
# Schedules whose torch namesakes can take one more group: the others keep a rate for each.
JOINED = {
    "StepLR", "MultiStepLR", "ExponentialLR", "ConstantLR", "LinearLR", "PolynomialLR",
    "ReduceLROnPlateau", "ChainedScheduler",
}  # fmt: skip
# Attributes that a user writes on a scheduler in mid-run.
ATTRIBUTES: dict[str, dict[str, tuple[Any, ...]]] = {
    "StepLR": {"step_size": (1, 3, 7), "gamma": (0.5, 0.9)},
    "MultiStepLR": {"gamma": (0.5, 0.9)},
    "ExponentialLR": {"gamma": (0.5, 0.99)},
    "CosineAnnealingLR": {"T_max": (5, 20), "eta_min": (0.0, 0.01)},
    "PolynomialLR": {"power": (1.0, 2.0)},
    "CosineAnnealingWarmRestarts": {"eta_min": (0.0, 0.01)},
    "ReduceLROnPlateau": {
        "factor": (0.5, 0.9), "patience": (0, 2), "cooldown": (0, 2), "best": (0.1, 5.0),
        "num_bad_epochs": (0, 1), "threshold": (0.0, 0.1),
    },
}  # fmt: skip
SETTINGS = ("momentum", "dampening", "weight_decay", "nesterov", "maximize")
COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda optimizer: pickle.loads(pickle.dumps(optimizer)),
}

rates = st.sampled_from([0.0, 0.1, 0.037, 1, 2.5]) | st.floats(0, 3)
momenta = st.sampled_from([0, 0.0, 0.5, 0.9, 1.0])
decays = st.sampled_from([0, 0.0, 1e-4, 0.1])
metrics = st.sampled_from([1.0, 0.5, 0.499, 2, float("nan"), float("inf"), -1.0])
which = st.integers(0, 7)  # of the groups, or of the parameters: the remainder counts
sizes = st.lists(
    st.tuples(st.sampled_from([0, 1, 7, 33]), st.sampled_from([torch.float32, torch.float64])),
    min_size=1, max_size=3,
)  # fmt: skip
gradients = st.lists(
    st.sampled_from(["new", "new", "new", "none", "kept", "zero"]), min_size=12, max_size=12
)


@st.composite
def settings_of_a_group(draw: Any) -> dict[str, Any]:
    """Draw the settings of a group, as torch's constructor accepts them."""
    drawn: dict[str, Any] = {
        "momentum": draw(momenta), "weight_decay": draw(decays), "maximize": draw(st.booleans()),
    }  # fmt: skip
    if drawn["momentum"] and draw(st.booleans()):
        return {**drawn, "dampening": 0, "nesterov": True}
    return {**drawn, "dampening": draw(st.sampled_from([0, 0.1, 1.0])), "nesterov": False}


groups = st.fixed_dictionaries({"sizes": sizes, "lr": rates, "settings": settings_of_a_group()})


@contextmanager
def quietly() -> Iterator[None]:
    """Ignore torch's warnings of schedulers stepped first, of epochs, and of a copied step."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of")
        warnings.filterwarnings("ignore", "Seems like `optimizer.step")
        warnings.filterwarnings("ignore", "The epoch parameter in `scheduler.step")
        yield


def through_a_file(state: Any) -> Any:
    """Save a state and load it as a stranger would: no code from the file is run."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """List the parameters of all groups."""
    return [p for group in optimizer.param_groups for p in group["params"]]


class BesideTorch(RuleBasedStateMachine):
    """A FusedDecaySGD and torch.optim.SGD with torch's schedulers; rules act on both alike."""

    backend = "auto"

    def __init__(self) -> None:
        super().__init__()
        self.seed = 0  # of the tensors drawn so far
        self.saved: Any = None
        self.joined = False  # whether a group was added to a schedule

    @initialize(
        chain=st.sampled_from(list(CHAINS)),
        drawn=st.lists(groups, min_size=1, max_size=3),
        every=st.sampled_from([1, 1, None, 2, 3]),
        capturable=st.sampled_from([False, False, True]),
    )
    def begin(self, chain: str, drawn: Any, every: int | None, capturable: bool) -> None:
        self.chain, self.every = CHAINS[chain], every
        # Capturable steps of kernels make momentum buffers ahead, which torch does not.
        self.capturable = capturable and self.backend in ("compiled", "reference")
        self.fed = any(case.is_plateau for case in self.chain)
        self.stepped = any(not case.is_plateau for case in self.chain)
        self.build([self.group(each) for each in drawn])

    def build(self, made: list[dict[str, Any]]) -> None:
        """Build both optimizers, each on copies of its own of the groups' tensors."""
        mine, other = (
            [{**g, "params": [leaf(p) for p in g["params"]]} for g in made] for _ in "12"
        )
        self.ours = FusedDecaySGD(
            mine, lr=0.5, schedule=[case.ours() for case in self.chain] or None,
            schedule_every=self.every, backend=self.backend, capturable=self.capturable,
        )  # fmt: skip
        with quietly():
            self.torchs = Torchs(other, self.chain, self.every)

    def group(self, drawn: dict[str, Any]) -> dict[str, Any]:
        params = [self.tensor(size, dtype=dtype) for size, dtype in drawn["sizes"]]
        return {"params": params, "lr": drawn["lr"], **drawn["settings"]}

    def tensor(self, *shape: int, dtype: torch.dtype) -> Tensor:
        self.seed += 1
        return numbers(*shape, dtype=dtype, seed=self.seed)

    @property
    def both(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        return self.ours, self.torchs.opt

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(*map(parameters, self.both), strict=True))

    def pick(self, number: int) -> tuple[Tensor, Tensor]:
        pairs = self.pairs()
        return pairs[number % len(pairs)]

    # -- the loop ----------------------------------------------------------------------------

    @rule(kinds=gradients, closure=st.booleans())
    def step(self, kinds: list[str], closure: bool) -> None:
        for i, pair in enumerate(self.pairs()):
            kind = kinds[i % len(kinds)] if pair[0].requires_grad else "none"
            if kind == "kept":
                continue
            grad = None if kind == "none" else self.tensor(*pair[0].shape, dtype=pair[0].dtype)
            for p in pair:
                p.grad = None if grad is None else grad * (kind == "new")
        self.ours.step((lambda: 0.5) if closure else None)
        self.torchs.step()

    @precondition(lambda self: self.stepped)
    @rule(count=st.sampled_from([*[2, 3, 10, 40] * 3, 1_030]))
    def go_on_without_gradients(self, count: int) -> None:
        if count > 40 and any(
            math.isfinite(end_of(c)) for case in self.chain for c in leaves(case)
        ):
            count = 40
        for pair in self.pairs():
            for p in pair:
                p.grad = None
        for _ in range(count):
            self.ours.step()
            self.torchs.step()
            if self.every is None:
                with quietly():
                    self.ours.scheduler.step()
                    self.torchs.advance()

    @precondition(lambda self: self.every is None and self.stepped)
    @rule()
    def advance(self) -> None:
        with quietly():
            self.ours.scheduler.step()
            self.torchs.advance()

    def can_go_to_an_epoch(self) -> bool:
        """Return whether torch can: not in a composition, nor with a group that joined."""
        alone = len(self.chain) == 1 and self.stepped and not self.chain[0].members
        divides_by_zero = alone and self.chain[0].kwargs.get("total_iters") == 0
        return alone and self.every is None and not self.joined and not divides_by_zero

    @precondition(can_go_to_an_epoch)
    @rule(epoch=st.integers(0, 60))
    def go_to_an_epoch(self, epoch: int) -> None:
        with quietly():
            self.ours.scheduler.step(epoch)
            self.torchs.schedulers[0].step(epoch)

    @precondition(lambda self: self.fed)
    @rule(metric=metrics, times=st.integers(1, 3), tensor=st.booleans())
    def feed(self, metric: float, times: int, tensor: bool) -> None:
        for _ in range(times):
            self.ours.scheduler.step(torch.tensor(metric) if tensor else metric)
            self.torchs.feed(torch.tensor(metric) if tensor else metric)

    # -- what a user writes ------------------------------------------------------------------

    @rule(number=which, lr=rates)
    def write_a_rate(self, number: int, lr: float) -> None:
        for optimizer in self.both:
            optimizer.param_groups[number % len(optimizer.param_groups)]["lr"] = lr

    @precondition(lambda self: len(self.chain) == 1 and self.chain[0].kind in ATTRIBUTES)
    @rule(number=which, choice=st.integers(0, 2))
    def write_an_attribute_of_the_scheduler(self, number: int, choice: int) -> None:
        """Write one of few values, so that hypothesis finds two writes of the same."""
        attributes = ATTRIBUTES[self.chain[0].kind]
        name = sorted(attributes)[number % len(attributes)]
        value = attributes[name][choice % len(attributes[name])]
        for scheduler in (self.ours.scheduler, self.torchs.schedulers[0]):
            setattr(scheduler, name, value)

    @rule(number=which, drawn=settings_of_a_group())
    def write_settings(self, number: int, drawn: dict[str, Any]) -> None:
        for optimizer in self.both:
            optimizer.param_groups[number % len(optimizer.param_groups)].update(drawn)

    @rule(number=which, on=st.booleans())
    def freeze_or_thaw(self, number: int, on: bool) -> None:
        for p in self.pick(number):
            p.requires_grad_(on)
            p.grad = None

    @rule(number=which)
    def forget_the_momentum_of_one(self, number: int) -> None:
        for optimizer, p in zip(self.both, self.pick(number), strict=True):
            optimizer.state.pop(p, None)

    @rule(number=which)
    def move_to_other_memory(self, number: int) -> None:
        for p in self.pick(number):
            p.data = p.data.clone()

    @rule(number=which)
    def replace_a_parameter(self, number: int) -> None:
        for optimizer, old in zip(self.both, self.pick(number), strict=True):
            for group in optimizer.param_groups:
                group["params"] = [leaf(p) if p is old else p for p in group["params"]]
            optimizer.state.pop(old, None)  # torch cannot save the state of a stranger

    @rule(number=which)
    def replace_a_groups_dict(self, number: int) -> None:
        for optimizer in self.both:
            place = number % len(optimizer.param_groups)
            optimizer.param_groups[place] = {**optimizer.param_groups[place]}

    @precondition(lambda self: len(self.pairs()) > 1)
    @rule(number=which)
    def take_out_a_parameter(self, number: int) -> None:
        for optimizer, old in zip(self.both, self.pick(number), strict=True):
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if p is not old]
            optimizer.state.pop(old, None)

    @precondition(
        lambda self: (
            len(self.ours.param_groups) < 5
            and all(leaf.kind in JOINED for case in self.chain for leaf in (case, *leaves(case)))
        )
    )
    @rule(drawn=groups, default=st.booleans())
    def add_a_group(self, drawn: dict[str, Any], default: bool) -> None:
        self.joined = bool(self.chain)
        made = self.group(drawn)
        if default:
            del made["lr"]
        for optimizer in self.both:
            optimizer.add_param_group({**made, "params": [leaf(p) for p in made["params"]]})

    # -- checkpoints and copies --------------------------------------------------------------

    @rule()
    def save(self) -> None:
        torchs = self.torchs
        self.saved = (
            [len(group["params"]) for group in self.ours.param_groups],
            through_a_file(self.ours.state_dict()),
            copy.deepcopy(torchs.opt.state_dict()),
            copy.deepcopy([s.state_dict() for s in torchs.schedulers]),
            torchs.count,
        )

    def can_load(self) -> bool:
        sizes = [len(group["params"]) for group in self.ours.param_groups]
        return self.saved is not None and self.saved[0] == sizes

    @precondition(can_load)
    @rule(anew=st.booleans())
    def load(self, anew: bool) -> None:
        """Go back to what was saved, in these two or, `anew`, in two that have made no step."""
        if anew:
            kept = [
                {**{name: group[name] for name in SETTINGS}, "params": [*group["params"]]}
                for group in self.ours.param_groups
            ]
            self.build(kept)
        _, ours, torchs, schedulers, count = copy.deepcopy(self.saved)
        self.ours.load_state_dict(ours, override=True)  # an attribute may have been written
        self.torchs.opt.load_state_dict(torchs)
        for scheduler, state in zip(self.torchs.schedulers, schedulers, strict=True):
            scheduler.load_state_dict(state)
        self.torchs.count = count

    @rule(how=st.sampled_from(list(COPIES)))
    def copy_ours(self, how: str) -> None:
        grads = [p.grad for p in parameters(self.ours)]
        self.ours = COPIES[how](self.ours)
        for p, grad in zip(parameters(self.ours), grads, strict=True):
            p.grad = None if grad is None else same_layout(grad)

    # torch's schedulers keep no base rate of a group that joined, and ours refuse such a state;
    # nor does any state of torch's hold the steps since the last schedule step.
    @precondition(lambda self: not self.joined and self.every in (1, None))
    @rule()
    def load_torchs_into_ours(self) -> None:
        states = copy.deepcopy([s.state_dict() for s in self.torchs.schedulers])
        with warnings.catch_warnings():  # of the schedule's state that torch carried along
            warnings.filterwarnings("ignore", ".*another optimizer went on")
            state = copy.deepcopy(self.torchs.opt.state_dict())
            self.ours.load_state_dict(state, override=True)
        if states:
            state = states[0] if len(states) == 1 else {"_schedulers": states}
            self.ours.scheduler.load_state_dict(state, override=True)

    @rule()
    def load_ours_into_torchs(self) -> None:
        self.torchs.opt.load_state_dict(copy.deepcopy(self.ours.state_dict()))
        if not self.chain:
            return
        state = copy.deepcopy(self.ours.scheduler.state_dict())
        states = state["_schedulers"] if len(self.chain) > 1 else [state]
        for scheduler, own in zip(self.torchs.schedulers, states, strict=True):
            scheduler.load_state_dict(own)

    @precondition(lambda self: self.every in (1, None))
    @rule()
    def fuse_torchs(self) -> None:
        """Go on with what `fuse` makes of a copy of torch's two."""
        with quietly():
            optimizer, schedulers = copy.deepcopy((self.torchs.opt, self.torchs.schedulers))
        for p, q in zip(parameters(optimizer), parameters(self.torchs.opt), strict=True):
            p.grad = None if q.grad is None else same_layout(q.grad)
        self.ours, _ = fuse(
            optimizer, schedulers, schedule_every=self.every, backend=self.backend,
            capturable=self.capturable,
        )  # fmt: skip

    # -- the verdict -------------------------------------------------------------------------

    @invariant()
    def all_is_equal(self) -> None:
        assert_same_state(self.ours, self.torchs.opt)
        for number, groups in enumerate(zip(*(o.param_groups for o in self.both), strict=True)):
            mine, other = ([float(group[name]) for name in SETTINGS] for group in groups)
            assert_same_rates(mine, other, f"group {number}, {SETTINGS}")
        if self.chain:
            epoch = self.ours.scheduler.last_epoch
            assert epoch == self.torchs.last_epoch, f"epoch {epoch}, not {self.torchs.last_epoch}"
