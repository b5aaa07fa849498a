"""Combinations of valid values that are impossible, or in which a value has no effect."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from mindeit.config.sources import DEFAULT
from mindeit.errors import UserError
from mindeit.models import plugins
from mindeit.models.registry import spec


@dataclasses.dataclass
class ResolvedOptions:
    """One value for each key, where it came from, and what was wrong.

    ``ranks``: the later a source, the higher; ``wrong`` names the keys with a value that is not allowed.
    """

    values: dict[str, Any]
    origins: dict[str, str]
    ranks: dict[str, int]
    mistakes: list[str] = dataclasses.field(default_factory=list)
    wrong: set[str] = dataclasses.field(default_factory=set)

    def shown(self, keys: Collection[str]) -> str:
        return ", ".join(f"{key} {self.values[key]} ({self.origins[key]})" for key in keys)


@dataclasses.dataclass(frozen=True)
class Rule:
    """``broken`` takes the values of ``keys``; ``why`` ends the message."""

    keys: tuple[str, ...]
    broken: Callable[..., bool]
    why: str


@dataclasses.dataclass(frozen=True)
class Need:
    """``keys`` have an effect only where ``met`` holds for the values of ``others``; ``needed`` says what to add."""

    keys: tuple[str, ...]
    others: tuple[str, ...]
    met: Callable[..., bool]
    needed: str


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


RULES = (
    Rule(
        ("cosub", "distillation_type"),
        lambda cosub, kind: cosub and kind != "none",
        "submodels teach each other or a teacher does; leave one out",
    ),
    Rule(
        ("cosub", "loss"),
        lambda cosub, loss: cosub and loss != "BCE",
        "submodels learn by binary cross entropy, from labels as from each other; allowed: loss BCE",
    ),
    Rule(
        ("cosub", "drop_path_rate", "train_mode"),
        lambda cosub, rate, on: cosub and not (rate and on),
        "the submodels are drawn by drop path, without it they are the same",
    ),
    Rule(
        ("amp_level", "device_target"),
        lambda level, device: level == "bf16" and device == "GPU",
        "MindSpore has no bfloat16 kernels there; allowed: O0, O2 or O3",
    ),
    Rule(
        ("recompute", "mode"),
        lambda recompute, mode: recompute and mode == 1,
        "only graphs compute again; allowed: mode 0, or recompute False",
    ),
    Rule(
        ("device_id", "distributed"),
        lambda device, distributed: device is not None and distributed,
        "the ranks would share one device; leave device_id out",
    ),
    Rule(
        ("pretrained", "ckpt_path"),
        lambda pretrained, path: pretrained and path is not None,
        "two sources of the first weights; leave one out",
    ),
    Rule(
        ("pretrained", "model"),
        lambda pretrained, model: pretrained and model is None,
        "pretrained weights need the name of a model",
    ),
    Rule(
        ("opt", "betas"),
        lambda opt, betas: betas is not None and len(betas) != (3 if opt == "adan" else 2),
        "adan takes 3 betas, the others 2",
    ),
    Rule(
        ("unscale_lr", "scheduler", "lr", "min_lr"),
        lambda unscaled, scheduler, lr, low: unscaled and scheduler == "cosine_decay" and low > lr,
        "the learning rate would rise; allowed: min_lr at most lr",
    ),
    Rule(
        ("bce_target_threshold", "label_smoothing"),
        lambda threshold, smoothing: threshold == 0 and smoothing > 0,
        "every class of a smoothed target is above 0, so each would become 1",
    ),
    Rule(
        ("class_weights",),
        lambda weights: weights != ("balanced",) and not all(map(_is_positive, weights)),
        "allowed: balanced, or a number above 0 for each class",
    ),
    Rule(
        ("class_weights", "cosub"),
        lambda weights, cosub: weights and cosub,
        "submodels teach each other all classes alike; leave one out",
    ),
)

NEEDS = (
    Need(
        ("teacher", "teacher_ckpt_path", "teacher_size", "teacher_mean", "teacher_std", "distillation_alpha"),
        ("distillation_type",),
        lambda kind: kind != "none",
        "--distillation_type hard or soft",
    ),
    Need(
        ("teacher_size", "teacher_mean", "teacher_std"),
        ("teacher_ckpt_path",),
        lambda path: path is not None and path.endswith(".onnx"),
        "--teacher_ckpt_path FILE.onnx",
    ),
    Need(
        ("distillation_tau", "distillation_reduction"),
        ("distillation_type",),
        lambda kind: kind == "soft",
        "--distillation_type soft",
    ),
    Need(("bce_target_threshold",), ("loss",), lambda loss: loss == "BCE", "--loss BCE"),
    Need(
        ("mixup_prob", "mixup_mode", "mixup_off_epoch"),
        ("mixup", "cutmix", "cutmix_minmax"),
        lambda *alphas: any(alphas),
        "--mixup or --cutmix above 0",
    ),
    Need(
        ("switch_prob",),
        ("mixup", "cutmix", "cutmix_minmax"),
        lambda mixup, *cutmix: mixup and any(cutmix),
        "--mixup and --cutmix above 0",
    ),
    Need(("re_value", "re_count"), ("re_prob",), bool, "--re_prob above 0"),
    Need(("scale", "ratio"), ("simple_random_crop",), lambda simple: not simple, "--simple_random_crop False"),
    Need(
        ("color_jitter",),
        ("auto_augment",),
        lambda kind: kind is None or kind.startswith(("3", "three")),
        "--auto_augment none or 3-augment",
    ),
    Need(("momentum", "nesterov"), ("opt",), lambda opt: opt == "sgd", "--opt sgd"),
    Need(("eps",), ("opt",), lambda opt: opt not in ("sgd", "lion"), "--opt adamw, lamb or adan"),
    Need(("betas",), ("opt",), lambda opt: opt != "sgd", "--opt adamw, lamb, adan or lion"),
    Need(("clip_mode", "clip_value"), ("clip_grad",), bool, "--clip_grad True"),
    Need(
        ("loss_scale", "loss_scale_type"), ("amp_level",), lambda level: level in ("O2", "O3"), "--amp_level O2 or O3"
    ),
    Need(("ema_decay", "ema_warmup"), ("ema",), bool, "--ema True"),
    Need(("min_lr",), ("scheduler",), lambda course: course == "cosine_decay", "--scheduler cosine_decay"),
    Need(("decay_epochs",), ("scheduler",), lambda course: course == "step_decay", "--scheduler step_decay"),
    Need(
        ("decay_rate",),
        ("scheduler",),
        lambda course: course in ("step_decay", "multi_step_decay"),
        "--scheduler step_decay or multi_step_decay",
    ),
    Need(
        ("multi_step_decay_milestones",),
        ("scheduler",),
        lambda course: course == "multi_step_decay",
        "--scheduler multi_step_decay",
    ),
    Need(("warmup_lr", "warmup_factor"), ("warmup_epochs",), bool, "--warmup_epochs above 0"),
    Need(("warmup_lr",), ("warmup_factor",), lambda factor: factor is None, "--warmup_factor none"),
    Need(("val_interval", "val_split", "patience"), ("val_while_train",), bool, "--val_while_train True"),
    Need(
        ("label_file", "held_out", "split_file"),
        ("dataset",),
        lambda dataset: dataset == "image_folder",
        "--dataset image_folder",
    ),
    Need(
        ("train_split", "val_split"),
        ("dataset",),
        lambda dataset: not dataset.startswith("imagenet-"),
        "a --dataset that has parts",
    ),
    Need(("held_out",), ("split_file",), lambda path: path is None, "no --split_file"),
    Need(("held_out", "split_file"), ("label_file",), lambda path: path is None, "no --label_file"),
    Need(("data_dir",), ("dataset",), lambda dataset: dataset != "digits", "another --dataset than digits"),
    Need(("use_ema",), ("ckpt_path",), lambda path: path is not None, "--ckpt_path FILE"),
    Need(("drop_rate", "drop_path_rate"), ("train_mode",), bool, "--train_mode True"),
    Need(("device_id",), ("device_target",), lambda device: device != "CPU", "--device_target GPU or Ascend"),
    Need(("compile_cache",), ("mode",), lambda mode: mode == 0, "--mode 0"),
)


def drop_ineffective(
    resolved: ResolvedOptions, defaults: Mapping[str, Any], checked: AbstractSet[str], lenient: Collection[str]
) -> list[tuple[str, str]]:
    """Set keys that would have no effect back to their defaults, with a mistake for each.

    There is no mistake if a later source decided so (``--distillation_type none`` over a file that names a teacher).
    For keys from one of the ``lenient`` origins, (origin, key) is returned instead of a mistake.
    """
    noted = []
    for need in NEEDS:
        if not set(need.others) <= checked or need.met(*(resolved.values[other] for other in need.others)):
            continue
        decided = max(resolved.ranks[other] for other in need.others)
        for key in need.keys:
            value = resolved.values[key]
            if key not in checked or value == defaults[key] or not value:
                continue
            if resolved.ranks[key] < decided:
                pass
            elif resolved.origins[key] in lenient:
                noted.append((resolved.origins[key], key))
            else:
                resolved.mistakes.append(
                    f"{resolved.shown([key])} has no effect with {resolved.shown(need.others)}; it needs {need.needed}"
                )
            resolved.values[key], resolved.origins[key] = defaults[key], DEFAULT
    return noted


def check_combinations(resolved: ResolvedOptions, checked: AbstractSet[str]) -> list[str]:
    """A line for each broken rule among the ``checked`` keys: those in use with valid values."""
    return [
        f"{resolved.shown(rule.keys)}: {rule.why}"
        for rule in RULES
        if set(rule.keys) <= checked and rule.broken(*(resolved.values[key] for key in rule.keys))
    ]


def check_model(resolved: ResolvedOptions) -> list[str]:
    """A line for a plugin that fails, or for an unknown model."""
    try:
        for path in resolved.values.get("plugin", ()):
            plugins.load(path)
    except UserError as error:
        return [f"{resolved.origins['plugin']}: {error}"]
    name = resolved.values.get("model")
    try:
        if name is not None:
            spec(name)
    except UserError as error:
        return [f"{resolved.origins['model']}: {error}"]
    return []
