"""The learning rate as a pure function of epoch and step (schedulers of timm 0.3.2)."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from mindeit.errors import UserError, nearest

REFERENCE_BATCH = 512  # images a step that lr is given for


def scaled_lr(lr: float, global_batch: int, unscale: bool = False) -> float:
    """The linear rule. ``global_batch``: images an update sees, on all devices and accumulated ones included."""
    return lr if unscale else lr * global_batch / REFERENCE_BATCH


@dataclass(frozen=True)
class Schedule:
    """``lr_at(epoch, fraction)``: the learning rate in force, with ``fraction`` of that epoch behind it.

    Epoch e trains at the schedule's value for e. The official main.py instead sets the value of the epoch just
    finished: its first two epochs both run at ``warmup_lr``, all others an epoch late, and the delay vanishes when a
    run is resumed. Here a resumed run equals an uninterrupted one, and warm-up takes the epochs it was given.

    ``lr`` is already scaled. ``lr_epoch_stair``: one value an epoch, else one a step.
    """

    lr: float
    epoch_size: int = 300
    scheduler: str = "cosine_decay"
    min_lr: float = 1e-5
    warmup_lr: float = 1e-6
    warmup_epochs: int = 5
    lr_epoch_stair: bool = True
    decay_epochs: int = 30
    multi_step_decay_milestones: tuple[int, ...] = (30, 60, 90)
    decay_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.scheduler not in _COURSES:
            raise UserError(
                f"scheduler is '{self.scheduler}'; allowed: {', '.join(_COURSES)}{nearest(self.scheduler, _COURSES)}"
            )

    def lr_at(self, epoch: int, fraction: float = 0.0) -> float:
        now = epoch if self.lr_epoch_stair else epoch + fraction
        if now < self.warmup_epochs:
            return self.warmup_lr + now * (self.lr - self.warmup_lr) / self.warmup_epochs
        return _COURSES[self.scheduler](self, now)


def _cosine_decay(schedule: Schedule, now: float) -> float:
    """Half a wave over all epochs, of which warm-up hides the beginning; ``min_lr`` from then on."""
    if now >= schedule.epoch_size:
        return schedule.min_lr
    height = 0.5 * (1 + math.cos(math.pi * now / schedule.epoch_size))
    return schedule.min_lr + (schedule.lr - schedule.min_lr) * height


def _step_decay(schedule: Schedule, now: float) -> float:
    return schedule.lr * schedule.decay_rate ** (now // schedule.decay_epochs)


def _multi_step_decay(schedule: Schedule, now: float) -> float:
    return schedule.lr * schedule.decay_rate ** bisect.bisect_right(schedule.multi_step_decay_milestones, now)


def _constant(schedule: Schedule, now: float) -> float:
    return schedule.lr


_COURSES = {
    "cosine_decay": _cosine_decay,
    "step_decay": _step_decay,
    "multi_step_decay": _multi_step_decay,
    "constant": _constant,
}
