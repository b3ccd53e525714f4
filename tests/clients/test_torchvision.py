"""The loop of torchvision's classification reference, with torch.optim.SGD beside it.

The reference is no part of the package: its lines about optimizer, scheduler and checkpoint are
repeated here, around the package's models, data and parameter groups.
"""

import functools

import pytest
import torch
from support import bare_torchvision
from support.bits import assert_same_bits
from support.twin import assert_same_state, rates
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

import lrfused
from lrfused import FusedDecaySGD, fuse

torchvision = bare_torchvision.package()
if torchvision is None:
    pytest.skip("the loop is about the package torchvision", allow_module_level=True)

from torchvision.ops._utils import split_normalization_params  # noqa: E402
from torchvision.transforms import ToTensor  # noqa: E402

EPOCHS, WARMUP = 4, 2
MAIN = {
    "steplr": ("StepLR", {"step_size": 2, "gamma": 0.1}),
    "cosine": ("CosineAnnealingLR", {"T_max": EPOCHS - WARMUP}),
    "exponential": ("ExponentialLR", {"gamma": 0.9}),
}
WARM = {
    "linear": ("LinearLR", {"start_factor": 0.01, "total_iters": WARMUP}),
    "constant": ("ConstantLR", {"factor": 0.01, "total_iters": WARMUP}),
    "none": None,
}
HYPER = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": True}


def torchs(groups, main, warm, per_epoch):
    optimizer = torch.optim.SGD(groups, foreach=False, **HYPER)
    members = [getattr(lr_scheduler, name)(optimizer, **kw) for name, kw in (warm, main) if name]
    if len(members) == 1:
        return optimizer, members[0]
    return optimizer, lr_scheduler.SequentialLR(optimizer, members, milestones=[WARMUP])


def fused(*arguments):
    return fuse(*torchs(*arguments))


def inside(groups, main, warm, per_epoch):
    """Make the step advance the schedule; the loop steps none."""
    members = [getattr(lrfused, name)(**kw) for name, kw in (warm, main) if name]
    schedule = members[0] if len(members) == 1 else lrfused.SequentialLR(members, [WARMUP])
    return FusedDecaySGD(groups, schedule=schedule, schedule_every=per_epoch, **HYPER), None


class Run:
    """A training run of the reference, on drawn images."""

    def __init__(self, make, main="cosine", warm="linear", *, amp=False, clip=None):
        torch.manual_seed(0)
        data = torchvision.datasets.FakeData(8, (3, 32, 32), 4, transform=ToTensor())
        self.loader = DataLoader(data, batch_size=4)
        self.model = torchvision.models.mobilenet_v3_small(num_classes=4)
        norms, others = split_normalization_params(self.model)
        groups = [
            {"params": norms, "weight_decay": 0.0},
            {"params": others, "weight_decay": HYPER["weight_decay"]},
        ]
        choice = MAIN[main], WARM[warm] or (None, None)
        self.optimizer, self.scheduler = make(groups, *choice, len(self.loader))
        self.ema = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20) if amp else None
        self.clip, self.start, self.rates = clip, 0, []

    def train(self, epochs=EPOCHS):
        for epoch in range(self.start, epochs):
            torch.manual_seed(epoch)  # of the model's dropout
            for image, target in self.loader:
                with torch.autocast("cpu", enabled=self.scaler is not None):
                    loss = nn.functional.cross_entropy(self.model(image), target)
                self.optimizer.zero_grad()
                self.update(loss)
                self.ema.update_parameters(self.model)
                self.rates.append(rates(self.optimizer)[0])
            if self.scheduler is not None:
                self.scheduler.step()
            self.rates[-1] = rates(self.optimizer)[0]  # those of the step may have moved already
            self.start = epoch + 1
        return self

    def update(self, loss):
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.scaler is None:
            loss.backward()
            if self.clip is not None:
                nn.utils.clip_grad_norm_(parameters, self.clip)
            self.optimizer.step()
            return
        self.scaler.scale(loss).backward()
        if self.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(parameters, self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def save(self, path):
        parts = ("model", "optimizer", "scheduler", "ema")
        kept = {part: getattr(self, part) for part in parts if getattr(self, part) is not None}
        states = {part: each.state_dict() for part, each in kept.items()}
        torch.save({**states, "epoch": self.start - 1}, path)

    def resume(self, path):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        self.start = checkpoint.pop("epoch") + 1
        for part, state in checkpoint.items():
            getattr(self, part).load_state_dict(state)
        return self


@functools.cache
def whole(main="cosine", warm="linear"):
    return Run(torchs, main, warm).train()


def assert_same_run(mine, theirs):
    assert mine.rates == theirs.rates
    assert_same_state(mine.optimizer, theirs.optimizer)
    for name, value in theirs.ema.state_dict().items():
        if value.is_floating_point():
            assert_same_bits(mine.ema.state_dict()[name], value, name)


pytestmark = [
    # torch's SequentialLR gives its members an epoch at a milestone.
    pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning"),
]


def test_the_page(printed):
    printed("torchvision")


@pytest.mark.parametrize("make", [fused, inside])
@pytest.mark.parametrize("warm", WARM)
@pytest.mark.parametrize("main", MAIN)
def test_a_run_is_torchs(make, main, warm):
    assert_same_run(Run(make, main, warm).train(), whole(main, warm))


@pytest.mark.parametrize("settings", [{"clip": 0.5}, {"amp": True, "clip": 0.5}])
def test_clipping_and_mixed_precision(settings):
    assert_same_run(Run(fused, **settings).train(), Run(torchs, **settings).train())


@pytest.mark.parametrize(
    "makes",
    [(fused, fused), (inside, inside), (torchs, fused), (fused, torchs)],
    ids=["fused", "inside", "from-torch", "to-torch"],
)
@pytest.mark.parametrize("done", [1, 3])
def test_a_run_is_resumed(makes, done, tmp_path):
    first = Run(makes[0]).train(done)
    first.save(tmp_path / "checkpoint.pth")
    rest = Run(makes[1]).resume(tmp_path / "checkpoint.pth").train()
    rest.rates = first.rates + rest.rates
    assert_same_run(rest, whole())
