"""mmengine's Runner with FusedDecaySGD, and with torch.optim.SGD beside it."""

import itertools

import pytest
from support import clients
from support.clients import Steps, assert_same_steps
from support.frameworks import HYPER, Network, dataset
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from lrfused import CosineAnnealingLR, FusedDecaySGD

mmengine = clients.package("mmengine", "hooks", "model", "optim", "runner")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"),
]

EPOCHS, ITERATIONS = 3, 6
NAMES = (f"run-{number}" for number in itertools.count())  # mmengine wants a new one each time
SCHEDULERS = [
    {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 5},
    {"type": "CosineAnnealingLR", "T_max": EPOCHS, "convert_to_iter_based": True},
    {"type": "MultiStepLR", "milestones": [2], "gamma": 0.5},
]


class Model(mmengine.model.BaseModel):
    def __init__(self):
        super().__init__()
        self.network = Network()

    def forward(self, inputs, labels, mode="loss"):
        return {"loss": self.network(inputs, labels)["loss"]}


class Watch(mmengine.hooks.Hook):
    """Keep what each iteration leaves, before mmengine's schedulers write the next rates."""

    priority = "VERY_HIGH"

    def __init__(self):
        self.steps = Steps()

    def after_train_iter(self, runner, *_, **__):
        self.steps.add(runner.optim_wrapper.optimizer)


class TorchsScheduler(mmengine.hooks.Hook):
    """Step one of torch's schedulers after each iteration."""

    priority = "HIGHEST"

    def before_train(self, runner):
        self.scheduler = lr_scheduler.CosineAnnealingLR(runner.optim_wrapper.optimizer, 18)

    def after_train_iter(self, *_, **__):
        self.scheduler.step()


def run(folder, optimizer, schedulers=None, epochs=EPOCHS, hooks=(), wrapper=None, **options):
    """Train as a config would; the wrapper clips, and gives biases another rate and no decay."""
    watch = Watch()
    runner = mmengine.runner.Runner(
        model=Model(),
        work_dir=str(folder),
        train_dataloader=DataLoader(dataset(), batch_size=6),
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        optim_wrapper={
            "optimizer": optimizer,
            "clip_grad": {"max_norm": 1.0},
            "paramwise_cfg": {"bias_lr_mult": 0.3, "bias_decay_mult": 0.0},
            **(wrapper or {}),
        },
        param_scheduler=schedulers,
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1}},
        custom_hooks=[watch, *hooks],
        experiment_name=next(NAMES),
        log_level="ERROR",
        **options,
    )
    runner.train()
    return runner.optim_wrapper.optimizer, watch.steps


THEIRS = {"type": "SGD", "foreach": False, **HYPER}
OURS = {"type": FusedDecaySGD, **HYPER}
BUILT_IN = {**OURS, "schedule": CosineAnnealingLR(EPOCHS * ITERATIONS)}


@pytest.fixture
def trusted(monkeypatch):
    """Let mmengine load its checkpoints, which hold more than tensors and numbers."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: scheduler["type"])
def test_mmengines_schedulers_write_the_rates_of_either(tmp_path, scheduler):
    _, ours = run(tmp_path / "ours", OURS, scheduler)
    _, theirs = run(tmp_path / "theirs", THEIRS, scheduler)
    assert_same_steps(ours, theirs)


def test_the_name_can_be_registered(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmengine.optim.OPTIMIZERS, "_module_dict", {})
        mmengine.registry.OPTIMIZERS.register_module(module=FusedDecaySGD)
        optimizer, _ = run(tmp_path, {**OURS, "type": "FusedDecaySGD"}, epochs=1)
    assert isinstance(optimizer, FusedDecaySGD)


def test_a_built_in_schedule_is_that_of_torch(tmp_path):
    _, ours = run(tmp_path / "ours", BUILT_IN)
    _, theirs = run(tmp_path / "theirs", THEIRS, hooks=[TorchsScheduler()])
    assert_same_steps(ours, theirs)


def test_both_act(tmp_path):
    _, ours = run(tmp_path / "ours", BUILT_IN, SCHEDULERS[2])
    _, theirs = run(tmp_path / "theirs", THEIRS, SCHEDULERS[2], hooks=[TorchsScheduler()])
    assert_same_steps(ours, theirs)


def test_a_built_in_schedule_counts_updates(tmp_path):
    optimizer, _ = run(tmp_path, BUILT_IN, wrapper={"accumulative_counts": 2})
    assert optimizer.scheduler.last_epoch == EPOCHS * ITERATIONS // 2


def resume(folder, *what):
    """Go on after the second epoch of the run in another folder."""
    saved = folder / "whole" / "epoch_2.pth"
    return run(folder / "rest", *what, resume=True, load_from=str(saved))[1]


@pytest.mark.parametrize("built_in", [True, False], ids=["built-in", "mmengine's"])
def test_a_run_is_resumed_from_mmengines_checkpoint(tmp_path, built_in, trusted):
    what = (BUILT_IN, None) if built_in else (OURS, SCHEDULERS[:2])
    _, whole = run(tmp_path / "whole", *what)
    assert_same_steps(resume(tmp_path, *what), Steps(whole[2 * ITERATIONS :]))


def test_a_run_of_torchs_is_resumed_with_ours(tmp_path, trusted):
    _, whole = run(tmp_path / "whole", THEIRS, SCHEDULERS[:2])
    rest = resume(tmp_path, OURS, SCHEDULERS[:2])
    assert_same_steps(rest, Steps(whole[2 * ITERATIONS :]))


def test_the_page(printed, trusted):
    printed("mmengine")
