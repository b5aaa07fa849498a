"""Configurations whose steps are one graph, so that one try speaks for all of them."""

from __future__ import annotations

from typing import Any

from device_audit.tries import Try
from mindeit import config
from mindeit.models.registry import spec

# Sections and keys that do not reach the step's graph: data, schedules, files, and constants of whatever value.
_SECTIONS = ("augment", "schedule", "checkpoint")
_KEYS = {
    "device_target",
    "device_id",
    "distributed",
    "mode",
    "seed",
    "num_parallel_workers",
    "dataset",
    "data_dir",
    "val_split",
    "label_file",
    "crop_pct",
    "interpolation",
    "skip_bad_images",
    "pretrained",
    "ckpt_path",
    "use_ema",
    "train_split",
    "compile_cache",
    "log_interval",
    "label_smoothing",
    "distillation_alpha",
    "teacher_ckpt_path",
    "eps",
    "betas",
    "momentum",
    "loss_scale",
    "loss_scale_type",
    "ema_decay",
}
_ZERO_OR_NOT = ("weight_decay", "drop_rate", "drop_path_rate")


def signature(one: Try) -> tuple[Any, ...]:
    """Equal for tries that compile the same. Sizes count where memory is planned (GPU, one rank); elsewhere they
    change shapes alone, and models differ by depth, head size and kind, not by width."""
    settings = config.parse(["--config", str(one.config)], description="")
    values = {
        key: value
        for key, value in settings.flat().items()
        if key not in _KEYS and not any(hasattr(getattr(settings, section), key) for section in _SECTIONS)
    }
    values.update({key: values[key] > 0 for key in _ZERO_OR_NOT})
    values["float32_images"] = bool(settings.augment.mixup or settings.augment.re_prob)  # else uint8, on devices
    values["image_size"] = values["image_size"] or spec(values["model"]).image_size
    if (one.device, one.ranks) != ("GPU", 1):
        values.update(_without_sizes(values))
    return one.device, one.ranks, tuple(sorted(values.items(), key=lambda item: item[0]))


def _without_sizes(values: dict[str, Any]) -> dict[str, Any]:
    row = spec(values["model"])
    shape = dict(row.variant)
    if "num_heads" in shape:
        shape["head_size"] = shape.pop("embed_dim") // shape.pop("num_heads")
    shape.pop("embed_dim", None)
    size = values["image_size"] if values["distillation_type"] != "none" else None  # a teacher may see another
    return {"model": (row.family, repr(sorted(shape.items()))), "batch_size": None, "image_size": size}
