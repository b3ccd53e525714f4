"""timm's schedulers, which write rates, on ours and on torch.optim.SGD beside it."""

import pytest
from support import bare_timm
from support.bits import assert_same_bits
from support.frameworks import KINDS, Network, dataset, ours, torchs
from support.twin import assert_same_state, rates
from torch.utils.data import DataLoader

schedulers = bare_timm.schedulers()
if schedulers is None:
    pytest.skip("the schedulers are those of the package timm", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated:FutureWarning")

EPOCHS = 6
COMMON = {"num_epochs": EPOCHS, "warmup_epochs": 2, "warmup_lr": 1e-3, "min_lr": 1e-4}
SCHEDULES = {
    "cosine": {"sched": "cosine"},
    "cosine-noise": {"sched": "cosine", "noise": [0.2, 0.9]},
    "cosine-cycles": {"sched": "cosine", "cycle_mul": 2.0, "cycle_limit": 2, "cycle_decay": 0.5},
    "tanh": {"sched": "tanh"},
    "step": {"sched": "step", "decay_epochs": 1, "decay_rate": 0.7},
    "multistep": {"sched": "multistep", "decay_milestones": [3, 5]},
    "poly": {"sched": "poly", "decay_rate": 0.5},
    "wsd": {"sched": "wsd", "decay_epochs": 0.4},
    "rsqrt": {"sched": "rsqrt"},
    "plateau": {"sched": "plateau", "patience_epochs": 0, "decay_rate": 0.5, "warmup_epochs": 1},
}


class Run:
    """A loop as timm's train.py has it."""

    def __init__(self, make, settings, by_epoch=True, case=None, start=0, values=None):
        network = self.network = Network()
        groups = network.groups()
        groups[1]["lr_scale"] = 0.3  # as for layers that learn slowly
        self.optimizer, self.handle = make(groups, case)
        if values is not None:
            network.load_state_dict(values[0])
            self.optimizer.load_state_dict(values[1])
        self.loader = DataLoader(dataset(), batch_size=6)
        self.updates = start * len(self.loader)
        self.start = start
        self.scheduler, _ = schedulers.create_scheduler_v2(
            self.optimizer,
            **{**COMMON, **settings},
            step_on_epochs=by_epoch,
            updates_per_epoch=len(self.loader),
        )
        if start:
            self.scheduler.step(start) if by_epoch else self.scheduler.step_update(self.updates)

    def epochs(self, count):
        for epoch in range(self.start, self.start + count):
            for batch in self.loader:
                self.optimizer.zero_grad()
                loss = self.network(*batch)["loss"]
                loss.backward()
                self.optimizer.step()
                self.updates += 1
                self.scheduler.step_update(num_updates=self.updates, metric=1.0)
                yield loss.detach()
            self.scheduler.step(epoch + 1, metric=2.0 - epoch % 2)


def run_beside(mine, theirs, epochs=EPOCHS):
    seen = []
    for loss, other in zip(mine.epochs(epochs), theirs.epochs(epochs), strict=True):
        assert_same_bits(loss, other, "loss")
        assert_same_state(mine.optimizer, theirs.optimizer)
        assert all(isinstance(rate, float) for rate in rates(mine.optimizer))
        seen.append(rates(mine.optimizer)[0])
    assert_same_state(mine.optimizer, theirs.optimizer)
    assert len(set(seen)) > 2


@pytest.mark.parametrize("settings", SCHEDULES.values(), ids=SCHEDULES)
def test_timms_schedulers_write_the_rates_of_either(settings):
    run_beside(Run(ours, settings), Run(torchs, settings))


@pytest.mark.parametrize(
    "name", sorted(SCHEDULES.keys() - {"plateau"})
)  # which goes by epochs only
def test_timms_schedulers_go_by_updates_too(name):
    run_beside(Run(ours, SCHEDULES[name], False), Run(torchs, SCHEDULES[name], False))


@pytest.mark.parametrize("by_epoch", [True, False], ids=["by-epoch", "by-update"])
def test_a_run_is_resumed_at_an_epoch(by_epoch):
    settings = SCHEDULES["cosine-noise"]
    first = Run(ours, settings, by_epoch)
    list(first.epochs(3))
    values = first.network.state_dict(), first.optimizer.state_dict()
    rest = Run(ours, settings, by_epoch, start=3, values=values)
    whole = Run(torchs, settings, by_epoch)
    list(whole.epochs(3))
    whole.start = 3
    run_beside(rest, whole, 3)


def test_a_schedule_of_ours_goes_on_from_what_timm_has_written():
    runs = [Run(make, SCHEDULES["step"], case=KINDS[2]) for make in (ours, torchs)]
    for losses in zip(*(run.epochs(3) for run in runs), strict=True):
        assert_same_bits(*losses, "loss")
        for run in runs:
            run.handle.step()
        assert_same_state(runs[0].optimizer, runs[1].optimizer)
