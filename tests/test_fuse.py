"""From torch.optim.SGD and its schedulers to FusedDecaySGD, at any point of a run."""

import copy

import pytest
import torch
from cases import COMPOSITIONS, HYPER, SCHEDULES, WITH_PLATEAU
from support.loops import RATES, epoch_of, group_counts, groups_of, is_plateau
from support.twin import assert_same_state, leaf, momentum, numbers, rates, sgd
from torch.optim import lr_scheduler

from lrfused import FusedDecaySGD, fuse

pytestmark = pytest.mark.backends(
    "host", reason="test_device_schedule.py runs schedules on a device"
)

CHAINS = {
    **{str(case): [case] for case in SCHEDULES},
    **{name: cases for table in (COMPOSITIONS, WITH_PLATEAU) for name, cases in table.items()},
}


class Loop:
    """A torch training loop, with the optimizer and the schedulers it holds."""

    def __init__(self, cases, hyper="maximize-all", lrs=None):
        lrs = lrs or RATES[max(group_counts(cases[0]))]
        self.params = [leaf(numbers(33, seed=i)) for i in range(2 * len(lrs))]
        groups = [{"params": self.params[2 * i : 2 * i + 2], "lr": lr} for i, lr in enumerate(lrs)]
        self.opt = sgd(groups, **HYPER[hyper])
        self.schedulers = [case.torchs(self.opt) for case in cases]
        self.done = 0

    def to(self, step):
        while self.done < step:
            for i, p in enumerate(self.params):
                p.grad = numbers(*p.shape, seed=1000 * self.done + i)
            self.opt.step()
            self.done += 1
            metric = 1.0 + self.done % 5
            fed = self.done % 2
            for s in self.schedulers:
                if isinstance(self.opt, FusedDecaySGD):
                    if self.stepped:
                        s.step()
                    if fed and self.fed:
                        s.step(metric)
                elif not is_plateau(s):
                    s.step()
                elif fed:
                    s.step(metric)
        return self

    def fuse(self, backend="auto", **how):
        self.fed = any(map(is_plateau, self.schedulers))
        self.stepped = not all(map(is_plateau, self.schedulers))
        self.opt, handle = fuse(self.opt, self.schedulers, backend=backend, **how)
        self.schedulers = [handle]
        return self


@pytest.mark.parametrize("point", [0, 1, 9, 25])
@pytest.mark.parametrize("cases", CHAINS.values(), ids=CHAINS)
def test_a_run_goes_on_with_the_same_bits(cases, point):
    theirs, ours = Loop(cases), Loop(cases)
    for loop in (theirs, ours):
        loop.schedulers.sort(key=is_plateau)  # plateaus are fed last in both loops
    theirs.to(point)
    ours.to(point).fuse()
    assert_same_state(ours.opt, theirs.opt, f"fused at {point},")
    for step in range(point, 45):
        ours.to(step)
        theirs.to(step)
        assert_same_state(ours.opt, theirs.opt, f"fused at {point}, after step {step},")
        assert ours.schedulers[0].last_epoch == epoch_of(theirs.schedulers[0])


def test_the_tensors_are_the_same_ones(backend):
    loop = Loop(CHAINS["StepLR-third"]).to(3)
    before = [(p, momentum(loop.opt, p)) for p in loop.params]
    loop.fuse(backend)
    for p, buffer in before:
        assert momentum(loop.opt, p) is buffer
    assert [p for g in loop.opt.param_groups for p in g["params"]] == loop.params
    loop.to(5)
    assert momentum(loop.opt, loop.params[0]) is before[0][1]


def test_the_groups_keep_all_that_is_in_them(backend):
    params = [("weight", leaf(numbers(5))), ("bias", leaf(numbers(3)))]
    torchs = sgd([{"params": params, "lr": 0.3, "mark": "mine"}], lr=0.1, weight_decay=0.1)
    opt, handle = fuse(torchs, backend=backend)
    (group,) = opt.param_groups
    assert group["param_names"] == ["weight", "bias"]
    assert (group["lr"], group["weight_decay"], group["mark"]) == (0.3, 0.1, "mine")
    assert opt.defaults["weight_decay"] == 0.1
    assert handle is opt.scheduler
    assert torchs.param_groups[0]["params"] == group["params"]


def test_the_schedule_may_move_into_the_step(backend):
    theirs, ours = Loop(CHAINS["CosineAnnealingLR-floor"]), Loop(CHAINS["CosineAnnealingLR-floor"])
    ours.to(7).fuse(backend, schedule_every=1)
    theirs.to(7)
    ours.schedulers = []
    assert_same_state(ours.to(30).opt, theirs.to(30).opt)


def test_clipping_may_move_into_the_step(backend):
    """With norms and coefficients that are powers of two."""
    p = leaf(torch.ones(4))
    optimizer, _ = fuse(sgd([p], lr=1.0), max_grad_norm=1.0, backend=backend)
    p.grad = torch.full((4,), 0.25)  # of norm 0.5
    optimizer.step()
    assert p.tolist() == [0.75] * 4
    assert float(optimizer.grad_norm) == 0.5
    p.grad = torch.full((4,), 2.0**40)  # of norm 2 ** 41, beside which 1e-6 is nothing
    optimizer.step()
    assert p.tolist() == [0.25] * 4


def test_a_step_takes_the_scale_after_fusing(backend):
    p = leaf(torch.ones(2))
    optimizer, handle = fuse(
        *_with_scheduler(p), amp="fused", advance="on_update", schedule_every=1, backend=backend
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(p.sum()).backward()
    p.grad[0] = torch.inf
    scaler.step(optimizer)
    scaler.update()
    assert p.tolist() == [1.0, 1.0]
    assert handle.last_epoch == 0
    p.grad = torch.full((2,), scaler.get_scale())
    scaler.scale(torch.ones(()))  # so that the scaler has seen this iteration
    scaler.step(optimizer)
    assert p.tolist() == [0.5, 0.5]
    assert handle.last_epoch == 1


def _with_scheduler(p):
    optimizer = sgd([p], lr=0.5)
    return optimizer, lr_scheduler.StepLR(optimizer, 3)


def test_a_fused_run_is_saved_and_copied_as_any_other(backend):
    for name in ("SequentialLR-all", "OneCycleLR-three", "cosine-plateau-multistep"):
        ours = Loop(CHAINS[name]).to(4).fuse(backend)
        state = copy.deepcopy(ours.to(12).opt.state_dict())
        again = Loop(CHAINS[name]).to(2).fuse(backend)
        again.opt.load_state_dict(state)
        for mine, other in zip(again.params, ours.params, strict=True):
            mine.data.copy_(other.data)
        again.done = 12
        assert_same_state(again.to(40).opt, ours.to(40).opt, name)


class Halving(lr_scheduler.LRScheduler):
    """A scheduler of the user's own, which lrfused cannot know."""

    def __init__(self, optimizer, period):
        self.period = period
        self.seen = [[]]
        super().__init__(optimizer)

    def get_lr(self):
        self.seen[0].append(self.last_epoch)
        if self.last_epoch % self.period or self.last_epoch == 0:
            return [group["lr"] for group in self.optimizer.param_groups]
        return [group["lr"] * 0.5 for group in self.optimizer.param_groups]


class Breathing(Halving):
    """One that moves momentum as well."""

    def get_lr(self):
        for group in self.optimizer.param_groups:
            group["momentum"] = 0.9 if self.last_epoch % 3 else 0.8
        return super().get_lr()


@pytest.mark.parametrize("kind", [Halving, Breathing])
def test_an_unknown_scheduler_is_recorded(backend, kind):
    theirs, ours = Loop([], lrs=[0.1, 0.037]), Loop([], lrs=[0.1, 0.037])
    for loop in (theirs, ours):
        loop.schedulers = [kind(loop.opt, 4)]
    theirs.to(6)
    ours.to(6)
    unknown = ours.schedulers[0]
    seen = list(unknown.seen[0])
    ours.fuse(backend, total_steps=30)
    assert unknown.seen[0] == seen  # it was a copy that ran ahead
    assert_same_state(ours.to(36).opt, theirs.to(36).opt)
    assert ours.schedulers[0].last_epoch == 36
    state = ours.opt.state_dict()
    with pytest.raises(ValueError, match=r"total_steps=30"):
        ours.schedulers[0].step()
    assert ours.opt.state_dict()["param_groups"] == state["param_groups"]


def test_a_recording_resumes(backend):
    whole, again = (Loop([], lrs=[0.1, 0.2]) for _ in range(2))
    for loop in (whole, again):
        loop.schedulers = [Halving(loop.opt, 3)]
        loop.fuse(backend, total_steps=40)
    again.opt.load_state_dict(copy.deepcopy(whole.to(11).opt.state_dict()))
    for mine, other in zip(again.params, whole.params, strict=True):
        mine.data.copy_(other.data)
    again.done = 11
    assert_same_state(again.to(40).opt, whole.to(40).opt)


def other_optimizer():
    other = sgd(groups_of([0.1]), lr=0.1)
    return lr_scheduler.StepLR(other, 3)


class Odd(lr_scheduler.LRScheduler):
    def get_lr(self):
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.1 * self.last_epoch
        return [group["lr"] for group in self.optimizer.param_groups]


REFUSED = {
    "adam": (lambda o: (torch.optim.Adam(groups_of([0.1])), None), TypeError, "Adam"),
    "fused": (lambda o: (FusedDecaySGD(groups_of([0.1])), None), TypeError, "FusedDecaySGD"),
    "stranger": (lambda o: (o, other_optimizer()), ValueError, "StepLR of another optimizer"),
    "word": (lambda o: (o, "cosine"), TypeError, "str"),
    "unknown": (lambda o: (o, Halving(o, 3)), TypeError, "Halving.*total_steps"),
    "several": (
        lambda o: (o, [lr_scheduler.StepLR(o, 3), Halving(o, 3)]), TypeError, "Halving.*total_st",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_fused_is_refused(backend, make, error, match):
    with pytest.raises(error, match=match):
        fuse(*make(sgd(groups_of([0.1]), lr=0.1)), backend=backend)


def test_what_cannot_be_recorded_is_refused(backend):
    opt = sgd(groups_of([0.1]), lr=0.1)
    unknown, plateau = Halving(opt, 3), lr_scheduler.ReduceLROnPlateau(opt)
    with pytest.raises(ValueError, match="ReduceLROnPlateau"):
        fuse(opt, [unknown, plateau], total_steps=10, backend=backend)
    for steps in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="total_steps"):
            fuse(opt, unknown, total_steps=steps, backend=backend)
    with pytest.raises(ValueError, match="weight_decay"):
        fuse(opt, Odd(opt), total_steps=10, backend=backend)
    differentiable = torch.optim.SGD(groups_of([0.1]), lr=0.1, differentiable=True)
    with pytest.raises(ValueError, match="differentiable"):
        fuse(differentiable, backend=backend)


def test_a_subclass_of_a_known_scheduler_is_not_taken_for_it(backend):
    class Mine(lr_scheduler.StepLR):
        def get_lr(self):
            return [0.25 for _ in super().get_lr()]

    opt = sgd(groups_of([0.1]), lr=0.1)
    mine = Mine(opt, 3)
    with pytest.raises(TypeError, match="Mine"):
        fuse(opt, mine, backend=backend)
    fused, handle = fuse(opt, mine, total_steps=5, backend=backend)
    fused.step()
    handle.step()
    assert rates(fused) == [0.25]


def test_tensor_rates_become_floats(backend):
    opt = torch.optim.SGD(groups_of([torch.tensor(0.1)]), lr=torch.tensor(0.5), foreach=False)
    fused, _ = fuse(opt, backend=backend)
    assert rates(fused) == [float(torch.tensor(0.1))]


def test_a_scheduler_that_is_left_behind_is_warned_of():
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    scheduler = lr_scheduler.StepLR(optimizer, 1)
    with pytest.warns(UserWarning, match="leaves a torch scheduler behind"):
        fuse(optimizer)
    fuse(optimizer, scheduler)
