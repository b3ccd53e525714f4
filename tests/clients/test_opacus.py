"""Opacus around FusedDecaySGD, and around torch.optim.SGD beside it, with the same noise."""

import pytest
import torch
from support import clients
from support.clients import Steps, assert_same_steps
from support.frameworks import HYPER, Network, dataset
from support.twin import sgd
from torch.nn import functional
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from lrfused import CosineAnnealingLR, FusedDecaySGD

opacus = clients.package("opacus", "utils.batch_memory_manager")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG turned off:UserWarning"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
    pytest.mark.filterwarnings("ignore:Optimal order is the largest alpha:UserWarning"),
]

BATCHES, EPOCHS = 6, 3
STEPS = BATCHES * EPOCHS


def torchs(groups):
    return sgd(groups, **HYPER)


def plain(groups):
    return FusedDecaySGD(groups, **HYPER)


def built_in(groups):
    return FusedDecaySGD(groups, schedule=CosineAnnealingLR(STEPS), **HYPER)


def by_the_loop(groups):
    schedule = CosineAnnealingLR(STEPS)
    return FusedDecaySGD(groups, schedule=schedule, schedule_every=None, **HYPER)


def attached(optimizer):
    return lr_scheduler.CosineAnnealingLR(optimizer, STEPS)


def handle(optimizer):
    return optimizer.original_optimizer.scheduler


def none(_):
    return None


class Training:
    """A network, its optimizer and data, all made private."""

    def __init__(self, make, scheduler, seed=3):
        network = Network()
        self.inner = make(network.groups())
        self.engine = opacus.PrivacyEngine()
        self.model, self.optimizer, self.loader = self.engine.make_private(
            module=network.layers,
            optimizer=self.inner,
            data_loader=DataLoader(dataset(), batch_size=6),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            noise_generator=torch.Generator().manual_seed(seed),
        )
        self.scheduler = scheduler(self.optimizer)

    def run(self, epochs, physical=None):
        """Train; `physical` is the size of the parts in which a batch is given, if any."""
        steps = Steps()
        torch.manual_seed(epochs)  # of the sampling
        for _ in range(epochs):
            if physical is None:
                self._epoch(self.loader, steps)
                continue
            with opacus.utils.batch_memory_manager.BatchMemoryManager(
                data_loader=self.loader, max_physical_batch_size=physical, optimizer=self.optimizer
            ) as loader:
                self._epoch(loader, steps)
        return steps

    def _epoch(self, loader, steps):
        for inputs, labels in loader:
            self.optimizer.zero_grad()
            functional.mse_loss(self.model(inputs), labels).backward()
            self.optimizer.step()
            if self.optimizer._is_last_step_skipped:
                continue
            if self.scheduler is not None:
                self.scheduler.step()
            steps.add(self.inner)


LOOPS = {
    "built-in": (built_in, none),
    "handle": (by_the_loop, handle),
    "attached": (plain, attached),
}


@pytest.mark.parametrize("physical", [None, 2], ids=["whole-batches", "parts"])
@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_private_training_has_torchs_bits(loop, physical):
    ours = Training(*loop).run(EPOCHS, physical)
    assert len(ours) == STEPS
    assert_same_steps(ours, Training(torchs, attached).run(EPOCHS, physical))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((built_in, none), (built_in, none)),
        ((by_the_loop, handle), (by_the_loop, handle)),
        ((torchs, attached), (plain, attached)),
    ],
    ids=["built-in", "handle", "torchs-optimizer"],
)
def test_a_private_training_is_resumed(tmp_path, before, after):
    whole = Training(*before)
    whole.run(2)
    whole.engine.save_checkpoint(
        path=tmp_path / "saved",
        module=whole.model,
        optimizer=whole.optimizer,
        checkpoint_dict={"scheduler": whole.scheduler and whole.scheduler.state_dict()},
    )
    rest = Training(*after)
    saved = rest.engine.load_checkpoint(
        path=tmp_path / "saved", module=rest.model, optimizer=rest.optimizer
    )
    if rest.scheduler is not None:
        rest.scheduler.load_state_dict(saved["scheduler"])
    rest.optimizer.generator.set_state(whole.optimizer.generator.get_state())
    assert_same_steps(rest.run(1), whole.run(1))


def test_the_page(printed):
    printed("opacus")
