"""Lightning: the schedule is the optimizer's, and its handle is what Lightning steps and monitors.

    python examples/lightning_digits.py

classifies scikit-learn's digits with clipped gradients, and goes on from a checkpoint half way.
Needs the packages lightning and scikit-learn.
"""

import tempfile
from pathlib import Path

import lightning as pl
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split

from lrfused import FusedDecaySGD, cosine_with_warmup

EPOCHS = 8


class Classifier(pl.LightningModule):
    """A small network; what concerns lrfused is in `configure_optimizers`."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch, _):
        """Return the loss of a batch."""
        pixels, classes = batch
        return cross_entropy(self.layers(pixels), classes)

    def validation_step(self, batch, _):
        """Log the share of digits that are recognised."""
        pixels, classes = batch
        self.log("accuracy", (self.layers(pixels).argmax(1) == classes).float().mean())

    def configure_optimizers(self):
        """Hand over the optimizer, and its handle to be stepped once a batch."""
        optimizer = FusedDecaySGD(
            self.parameters(),
            lr=0.2,
            momentum=0.9,
            schedule=cosine_with_warmup(self.steps, 20),
            schedule_every=None,
        )
        scheduler = {"scheduler": optimizer.scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def main():
    """Train half of the epochs, then go on with another model from the checkpoint."""
    pl.seed_everything(0, verbose=False)
    pixels, classes = load_digits(return_X_y=True)
    digits = TensorDataset(torch.tensor(pixels).float() / 16, torch.tensor(classes))
    train, validation = random_split(digits, [0.8, 0.2])
    batches = DataLoader(train, batch_size=64, shuffle=True)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "half.ckpt"
        for epochs, resumed in ((EPOCHS // 2, None), (EPOCHS, checkpoint)):
            monitor = LearningRateMonitor(logging_interval="step")
            trainer = pl.Trainer(
                accelerator="cpu",
                callbacks=[monitor],
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
                gradient_clip_val=1.0,
                log_every_n_steps=10,
                logger=CSVLogger(folder),
                max_epochs=epochs,
            )
            model = Classifier(EPOCHS * len(batches))
            trainer.fit(model, batches, DataLoader(validation, 64), ckpt_path=resumed)
            trainer.save_checkpoint(checkpoint)
            for rate in monitor.lrs["lr-FusedDecaySGD"][::3]:
                print(f"{rate:.4f} " + "*" * round(200 * rate))
    print(f"accuracy {float(trainer.callback_metrics['accuracy']):.3f}")


if __name__ == "__main__":
    main()
