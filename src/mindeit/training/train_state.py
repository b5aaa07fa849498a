"""How far a run has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class TrainState:
    """All of it is saved. ``batch`` counts batches of the current epoch, ``step`` all updates.

    ``trained``: the figures of an epoch that was trained, until it is evaluated and recorded.
    """

    epoch: int = 0  # whole ones done
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # of this epoch's updates
    updates: int = 0
    skipped: int = 0  # unreadable images of this epoch
    best: float = -1.0
    best_ema: float = -1.0
    since_best: int = 0  # evaluations
    trained: dict[str, Any] | None = None

    def next_epoch(self, figures: dict[str, Any]) -> None:
        train_loss = self.loss_sum / max(self.updates, 1)
        self.epoch, self.batch, self.loss_sum, self.updates, self.skipped = self.epoch + 1, 0, 0.0, 0, 0
        self.trained = {"epoch": self.epoch, "step": self.step, "train_loss": train_loss, **figures}

    def restore(self, saved: Mapping[str, Any]) -> None:
        for name, value in saved.items():
            setattr(self, name, value)
