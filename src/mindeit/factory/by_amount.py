"""Settings of a fine-tuning that nobody chose: by the number of images to train on (docs/finetune.md says why)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mindeit.config.sources import DEFAULT
from mindeit.data import Division, open_source

MODEL = "deit_small_patch16_224"
COMMON: dict[str, Any] = {
    "unscale_lr": True,
    "lr_epoch_stair": False,
    "warmup_lr": 1e-6,
    "min_lr": 1e-6,
    "clip_grad": True,
    "aug_repeats": 0,
    "color_jitter": 0.0,
    "re_prob": 0.0,
    "log_interval": 20,
}
FROM_WEIGHTS = {"layer_decay": 0.75}  # early layers know much of what they need, and move less


class Amount(NamedTuple):
    """A row of the table: what so few images ask for."""

    below: float  # images to train on
    epoch_size: int
    warmup_epochs: int
    batch_size: int
    lr: float
    scale: tuple[float, float]
    auto_augment: str | None
    mixup: float
    cutmix: float
    drop_path_rate: float


AMOUNTS = (
    Amount(1_000, 60, 5, 16, 5e-4, (0.5, 1.0), None, 0.0, 0.0, 0.0),
    Amount(10_000, 30, 3, 32, 5e-4, (0.35, 1.0), "rand-m7-mstd0.5-inc1", 0.0, 0.0, 0.05),
    Amount(100_000, 20, 2, 64, 5e-4, (0.2, 1.0), "rand-m9-mstd0.5-inc1", 0.1, 0.5, 0.1),
    Amount(float("inf"), 20, 2, 128, 5e-4, (0.08, 1.0), "rand-m9-mstd0.5-inc1", 0.8, 1.0, 0.1),
)


def settings(values: Mapping[str, Any], origins: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """(value, origin) of each key that ``by_amount`` decides, if it is on."""
    if not values["by_amount"]:
        return {}
    found: dict[str, tuple[Any, str]] = {}
    if values["ckpt_path"] is None:
        found = {"model": (MODEL, "without ckpt_path"), "pretrained": (True, "without ckpt_path")}
    fresh = values["ckpt_path"] is None and not values["pretrained"] and origins["pretrained"] != DEFAULT
    images = _images_to_train(values)
    chosen = by_amount(images, from_weights=not fresh)
    return {**found, **{key: (value, f"by {images} images") for key, value in chosen.items()}}


def by_amount(images: int, *, from_weights: bool) -> dict[str, Any]:
    """The settings for so many images."""
    row = next(row for row in AMOUNTS if images < row.below)
    chosen = {**row._asdict(), **COMMON, **(FROM_WEIGHTS if from_weights else {})}
    del chosen["below"]
    while chosen["batch_size"] > 1 and 4 * chosen["batch_size"] > images:
        chosen["batch_size"] //= 2
    return chosen


def _images_to_train(values: Mapping[str, Any]) -> int:
    division = Division(values["held_out"], values["seed"], values["split_file"])
    split = values["train_split"]
    return len(open_source(values["dataset"], values["data_dir"], split, train_split=split, division=division))
