"""pytorch_warmup around the handle's step, and around torch's scheduler beside it."""

import pytest
from support import clients
from support.clients import Steps, assert_same_steps
from support.frameworks import HYPER, Network, dataset
from support.twin import sgd
from torch.optim import lr_scheduler

from lrfused import CosineAnnealingLR, FusedDecaySGD

pytorch_warmup = clients.package("pytorch_warmup")

WARMUPS = {
    "linear": lambda optimizer: pytorch_warmup.LinearWarmup(optimizer, warmup_period=5),
    "exponential": lambda optimizer: pytorch_warmup.ExponentialWarmup(optimizer, warmup_period=5),
}
STEPS = 16


def ours(groups, every=None):
    schedule = CosineAnnealingLR(STEPS)
    optimizer = FusedDecaySGD(groups, schedule=schedule, schedule_every=every, **HYPER)
    return optimizer, optimizer.scheduler


def torchs(groups):
    optimizer = sgd(groups, **HYPER)
    return optimizer, lr_scheduler.CosineAnnealingLR(optimizer, STEPS)


class Nothing:
    """A scheduler with nothing to do, as the optimizer's step moves the schedule."""

    def step(self):
        pass


class Loop:
    """The loop of pytorch_warmup's README."""

    def __init__(self, make, warmup):
        self.network = Network()
        self.optimizer, self.scheduler = make(self.network.groups())
        self.warmup = warmup(self.optimizer)

    def run(self, count):
        steps = Steps()
        for _ in range(count):
            self.optimizer.zero_grad()
            self.network(*dataset().tensors)["loss"].backward()
            self.optimizer.step()
            with self.warmup.dampening():
                self.scheduler.step()
            steps.add(self.optimizer)
        return steps

    def state(self):
        parts = self.network, self.optimizer, self.scheduler, self.warmup
        return [part.state_dict() for part in parts]

    def load(self, states):
        parts = self.network, self.optimizer, self.scheduler, self.warmup
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)


@pytest.mark.parametrize("warmup", WARMUPS.values(), ids=WARMUPS)
def test_the_warmup_dampens_the_rates_of_either(warmup):
    assert_same_steps(Loop(ours, warmup).run(STEPS), Loop(torchs, warmup).run(STEPS))


@pytest.mark.parametrize("warmup", WARMUPS.values(), ids=WARMUPS)
@pytest.mark.parametrize("at", [3, 8], ids=["while-it-warms", "after-it"])
def test_a_run_is_resumed(warmup, at):
    first = Loop(ours, warmup)
    first.run(at)
    rest = Loop(ours, warmup)
    rest.load(first.state())
    whole = Loop(torchs, warmup).run(STEPS)
    assert_same_steps(rest.run(STEPS - at), Steps(whole[at:]))


def test_a_schedule_inside_the_step_is_undone():
    loop = Loop(lambda groups: ours(groups, every=1), WARMUPS["linear"])
    loop.scheduler = Nothing()
    assert loop.run(STEPS).rates[-1] == [HYPER["lr"], 0.02]


def test_the_page(printed):
    printed("pytorch-warmup")
