"""torch.optim.swa_utils around the optimizer, with torch.optim.SGD in the same loop beside it."""

from contextlib import nullcontext

import pytest
from cases import STEPPED
from support.bits import assert_same_bits
from support.frameworks import KINDS, Network, dataset, ours, torchs
from support.twin import assert_same_state, rates
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader

EPOCHS, START = 8, 3


class Normed(Network):
    """The network with a norm whose statistics have to be taken anew for averaged weights."""

    def __init__(self):
        super().__init__()
        self.layers.insert(1, nn.BatchNorm1d(16))

    def forward(self, inputs, labels=None):
        return self.layers(inputs) if labels is None else super().forward(inputs, labels)


class Run:
    """The loop of torch's documentation: a schedule, then SWALR, and averages of the weights."""

    def __init__(self, make, case, every=None, **swalr):
        self.model = Normed()
        made = make(self.model.groups(), case, *([every] if every else []))
        self.optimizer, self.scheduler = made
        self.in_step = every is not None
        self.both = False  # whether the schedule goes on beside SWALR
        self.loader = DataLoader(dataset(), batch_size=12)
        ema = get_ema_multi_avg_fn(0.9)
        self.averages = {
            "swa": AveragedModel(self.model),
            "ema": AveragedModel(self.model, multi_avg_fn=ema),
        }
        self.swalr = {"swa_lr": 0.03, "anneal_epochs": 3, **swalr}

    def attach(self):
        self.annealing = SWALR(self.optimizer, **self.swalr)
        return self

    def epoch(self, number):
        for batch in self.loader:
            self.optimizer.zero_grad()
            self.model(*batch)["loss"].backward()
            self.optimizer.step()
            self.averages["ema"].update_parameters(self.model)
            if (number < START or self.both) and not self.in_step:
                self.scheduler.step()
        if number >= START:
            self.averages["swa"].update_parameters(self.model)
            self.annealing.step()


def compare_averages(mine, theirs):
    for name, average in mine.averages.items():
        other = theirs.averages[name]
        for run, each in ((mine, average), (theirs, other)):
            update_bn(run.loader, each)
        for key, value in average.state_dict().items():
            if value.is_floating_point():
                assert_same_bits(value, other.state_dict()[key], f"{name} {key}")
        assert int(average.n_averaged) == (EPOCHS - START if name == "swa" else 3 * EPOCHS)


def test_each_kind_of_schedule_has_a_case_for_frameworks():
    assert sorted(case.kind for case in KINDS) == sorted({case.kind for case in STEPPED})


@pytest.mark.parametrize("strategy", ["linear", "cos"])
@pytest.mark.parametrize("case", KINDS, ids=str)
def test_swalr_takes_over_from_a_schedule(case, strategy):
    runs = [Run(make, case, anneal_strategy=strategy).attach() for make in (ours, torchs)]
    for number in range(EPOCHS):
        for run in runs:
            run.epoch(number)
        assert_same_state(runs[0].optimizer, runs[1].optimizer, f"after epoch {number},")
    compare_averages(*runs)
    assert rates(runs[0].optimizer) == [0.03, 0.03]


def test_swalr_beside_a_schedule_inside_the_step_both_act_as_in_torch():
    mine, theirs = Run(ours, KINDS[3], every=1), Run(torchs, KINDS[3])
    for number in range(START):
        mine.epoch(number)
        theirs.epoch(number)
    assert_same_state(mine.optimizer, theirs.optimizer)
    mine.attach()
    theirs.attach()
    theirs.both = True
    for number in range(START, EPOCHS):
        with pytest.warns(UserWarning, match="both act") if number == START else nullcontext():
            mine.epoch(number)
        theirs.epoch(number)
        assert_same_state(mine.optimizer, theirs.optimizer, f"after epoch {number},")
    compare_averages(mine, theirs)


def test_swalr_alone():
    runs = [Run(make, None).attach() for make in (ours, torchs)]
    for number in range(START, START + 5):
        for run in runs:
            run.epoch(number)
        assert_same_state(runs[0].optimizer, runs[1].optimizer, f"after epoch {number},")
