"""A script's whole configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mindeit.config.schema import (
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)

SECTIONS: dict[str, type] = {
    "run": RunConfig,
    "data": DataConfig,
    "augment": AugmentConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "loss": LossConfig,
    "optim": OptimConfig,
    "schedule": ScheduleConfig,
    "checkpoint": CheckpointConfig,
}
ALL = tuple(SECTIONS)
OF_TRAINING = ("held_out", "by_amount", "check_images", "drop_rate", "drop_path_rate")  # in groups that others use too


@dataclasses.dataclass(frozen=True)
class Config:
    """The groups, one script's own options (``script``), and where each value came from."""

    run: RunConfig
    data: DataConfig
    augment: AugmentConfig
    model: ModelConfig
    train: TrainConfig
    loss: LossConfig
    optim: OptimConfig
    schedule: ScheduleConfig
    checkpoint: CheckpointConfig
    script: Any
    origins: Mapping[str, str]  # key -> "default", the YAML file's path or "command line"
    notes: tuple[str, ...] = ()  # what was read without being followed, one line each

    def flat(self) -> dict[str, Any]:
        """Every key of the schema and its value, in one dictionary."""
        return {key: value for section in ALL for key, value in vars(getattr(self, section)).items()}
