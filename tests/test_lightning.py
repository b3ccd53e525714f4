"""Lightning's Trainer, with torch.optim.SGD in the same loop beside it."""

import pytest
import torch
from support.bits import as_integers, assert_same_rates
from support.frameworks import KINDS, PLATEAU, Network, dataset, ours, torchs
from support.twin import assert_same_state, rates
from torch.utils.data import DataLoader

import lrfused

pl = pytest.importorskip("lightning", reason="the loop is that of the package lightning")

from lightning.pytorch.callbacks import LearningRateMonitor, StochasticWeightAveraging  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from lightning.pytorch.plugins import MixedPrecision  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning"),
]


class Module(pl.LightningModule):
    """Train the network with what `configure` makes of its groups."""

    def __init__(self, configure):
        super().__init__()
        self.network, self.configure, self.losses = Network(), configure, []

    def training_step(self, batch, _):
        loss = self.network(*batch)["loss"]
        self.losses.append(loss.detach())
        return loss

    def validation_step(self, batch, _):
        self.log("score", 1.0 + self.current_epoch % 3)

    def configure_optimizers(self):
        return self.configure(self.network.groups())


class Fit:
    """One training run and its results."""

    def __init__(self, folder, module, resume=None, callbacks=(), **kwargs):
        self.monitor = LearningRateMonitor(logging_interval="step", log_momentum=True)
        self.trainer = pl.Trainer(
            **{"max_epochs": 2, **kwargs},
            accelerator="cpu",
            callbacks=[self.monitor, *callbacks],
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            limit_val_batches=1,
            log_every_n_steps=1,
            logger=CSVLogger(folder),
            num_sanity_val_steps=0,
        )
        loader = DataLoader(dataset(), batch_size=6)
        self.trainer.fit(module, loader, loader, ckpt_path=resume)
        self.optimizer, self.losses = self.trainer.optimizers[0], module.losses

    @property
    def shown(self):
        return list(self.monitor.lrs.values())


def assert_same_fit(mine, theirs):
    assert len(mine.losses) == len(theirs.losses) > 5
    for step, pair in enumerate(zip(mine.losses, theirs.losses, strict=True)):
        assert torch.equal(*map(as_integers, pair)), f"loss {step}: {pair}"
    assert_same_state(mine.optimizer, theirs.optimizer)
    assert all(type(rate) is float for shown in mine.shown for rate in shown)
    for shown, want in zip(mine.shown, theirs.shown, strict=True):
        assert_same_rates(shown, want, "LearningRateMonitor")


def stepped(make, case, **config):
    """Configure an optimizer whose scheduler Lightning steps."""

    def configure(params):
        optimizer, scheduler = make(params, case)
        config_of = {"scheduler": scheduler, "interval": "step", **config}
        return {"optimizer": optimizer, "lr_scheduler": config_of}

    return configure


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_schedules_that_lightning_steps(tmp_path, case):
    mine = Fit(tmp_path, Module(stepped(ours, case)))
    theirs = Fit(tmp_path, Module(stepped(torchs, case)))
    assert_same_fit(mine, theirs)
    assert mine.optimizer.scheduler.last_epoch == 12


@pytest.mark.parametrize("case", KINDS[:4], ids=str)
def test_a_schedule_inside_the_step_needs_no_scheduler(tmp_path, case):
    def configure(params):
        return ours(params, case, every=1)[0]

    mine = Fit(tmp_path, Module(configure))
    assert_same_fit(mine, Fit(tmp_path, Module(stepped(torchs, case))))


def test_a_schedule_steps_once_an_epoch(tmp_path):
    mine, theirs = (
        Fit(tmp_path, Module(stepped(make, KINDS[2], interval="epoch")), max_epochs=4)
        for make in (ours, torchs)
    )
    assert_same_fit(mine, theirs)
    assert mine.optimizer.scheduler.last_epoch == 4


# Lightning knows from its class that a plateau is fed; for the second it is told.
@pytest.mark.parametrize("config", [{}, {"reduce_on_plateau": True}], ids=str)
def test_a_plateau_is_fed_what_it_monitors(tmp_path, config):
    def configure(make):
        return stepped(make, PLATEAU, interval="epoch", monitor="score", **config)

    mine, theirs = (Fit(tmp_path, Module(configure(make)), max_epochs=6) for make in (ours, torchs))
    assert_same_fit(mine, theirs)
    assert rates(mine.optimizer)[0] < 0.05 / 2


def test_a_plateau_beside_a_schedule_in_the_step(tmp_path):
    def mine(params):
        schedule = [KINDS[2].ours(), PLATEAU.ours()]
        optimizer = lrfused.FusedDecaySGD(params, lr=0.05, momentum=0.9, schedule=schedule)
        config = {"scheduler": optimizer.scheduler, "monitor": "score"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def theirs(params):
        optimizer = torch.optim.SGD(params, lr=0.05, momentum=0.9, foreach=False)
        configs = [
            {"scheduler": KINDS[2].torchs(optimizer), "interval": "step"},
            {"scheduler": PLATEAU.torchs(optimizer), "monitor": "score"},
        ]
        return [optimizer], configs

    fits = [Fit(tmp_path, Module(configure), max_epochs=5) for configure in (mine, theirs)]
    assert_same_state(fits[0].optimizer, fits[1].optimizer)


def in_fp16(scale):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    plugin = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
    return {"plugins": plugin, "gradient_clip_val": 0.1}


LOOPS = {
    "clip-norm": lambda: {"gradient_clip_val": 0.1},
    "clip-value": lambda: {"gradient_clip_val": 0.05, "gradient_clip_algorithm": "value"},
    "bf16": lambda: {"precision": "bf16-mixed", "gradient_clip_val": 0.1},
    "fp16": lambda: in_fp16(2.0**10),
    "accumulate": lambda: {"accumulate_grad_batches": 4},  # of 6 batches
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_precisions_clipping_and_accumulation(tmp_path, loop):
    mine, theirs = (
        Fit(tmp_path, Module(stepped(make, KINDS[3])), **loop()) for make in (ours, torchs)
    )
    assert_same_fit(mine, theirs)


def test_what_keeps_torchs_fused_from_being_clipped_is_not_there(tmp_path):
    fused = Module(lambda params: torch.optim.SGD(params, lr=0.1, fused=True))
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        Fit(tmp_path, fused, **in_fp16(2.0**10))
    mine = Fit(tmp_path, Module(stepped(ours, KINDS[3])), **in_fp16(2.0**10))
    assert mine.optimizer.scheduler.last_epoch == 12


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # a step is left out
def test_fp16_leaves_out_steps_that_overflow(tmp_path):
    mine, theirs = (
        Fit(tmp_path, Module(stepped(make, KINDS[3])), **in_fp16(2.0**22))
        for make in (ours, torchs)
    )
    assert_same_fit(mine, theirs)
    scales = [fit.trainer.precision_plugin.scaler.get_scale() for fit in (mine, theirs)]
    assert scales[0] == scales[1] < 2.0**21
    assert mine.optimizer.scheduler.last_epoch == 12  # Lightning steps the schedule all the same


def test_stochastic_weight_averaging_takes_over(tmp_path):
    mine, theirs = (
        Fit(
            tmp_path,
            Module(stepped(make, KINDS[2], interval="epoch")),
            callbacks=[StochasticWeightAveraging(0.03, swa_epoch_start=2, annealing_epochs=2)],
            max_epochs=5,
        )
        for make in (ours, torchs)
    )
    assert_same_fit(mine, theirs)
    assert rates(mine.optimizer) == [0.03, 0.03]


@pytest.mark.parametrize(
    "makes", [(ours, ours), (torchs, ours), (ours, torchs)], ids=["here", "from-torch", "to-torch"]
)
@pytest.mark.parametrize("case", [*KINDS[3:5], KINDS[11], PLATEAU], ids=str)
def test_a_run_is_resumed_from_a_checkpoint(tmp_path, case, makes):
    config = {"monitor": "score", "interval": "epoch"} if case is PLATEAU else {}
    whole = Fit(tmp_path, Module(stepped(torchs, case, **config)), max_epochs=4)
    module = Module(stepped(makes[0], case, **config))
    first = Fit(tmp_path, module, max_epochs=2)
    first.trainer.save_checkpoint(tmp_path / "half.ckpt")
    again = Module(stepped(makes[1], case, **config))
    rest = Fit(tmp_path, again, max_epochs=4, resume=tmp_path / "half.ckpt")
    assert_same_state(rest.optimizer, whole.optimizer)
    assert len(again.losses) == len(module.losses) == len(whole.losses) // 2


class Manual(Module):
    """Make the steps by hand, through what Lightning has put around the optimizer."""

    automatic_optimization = False

    def training_step(self, batch, _):
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, _))
        optimizer.step()
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] == scheduler.get_last_lr()[0]
        if isinstance(optimizer, lrfused.FusedDecaySGD):
            assert optimizer.scheduler.get_last_lr() == scheduler.get_last_lr()
            assert (
                optimizer.state_dict()["param_groups"]
                == (optimizer.optimizer.state_dict()["param_groups"])
            )


def test_manual_optimization(tmp_path):
    mine, theirs = (Fit(tmp_path, Manual(stepped(make, KINDS[3]))) for make in (ours, torchs))
    assert_same_fit(mine, theirs)


def test_a_scheduler_for_what_the_step_moves_is_refused(tmp_path):
    def configure(params):
        optimizer, scheduler = ours(params, KINDS[0], every=1)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    with pytest.raises(RuntimeError, match="schedule_every=None"):
        Fit(tmp_path, Module(configure))
