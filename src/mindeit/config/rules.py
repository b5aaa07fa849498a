"""Values that are right one by one and impossible together."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Rule:
    """``broken`` takes the values of ``keys``; ``why`` ends the message."""

    keys: tuple[str, ...]
    broken: Callable[..., bool]
    why: str


RULES = (
    Rule(("distillation_type", "model"), lambda kind, model: kind != "none" and model and "distilled" not in model,
         "only a distilled model has the head that follows a teacher"),
    Rule(("cosub", "distillation_type"), lambda cosub, kind: cosub and kind != "none",
         "submodels teach each other or a teacher does; leave one out"),
    Rule(("cosub", "loss"), lambda cosub, loss: cosub and loss != "BCE",
         "submodels learn by binary cross entropy, from labels as from each other; allowed: loss BCE"),
    Rule(("amp_level", "device_target"), lambda level, device: level == "bf16" and device != "Ascend",
         "only Ascend has bfloat16 kernels; allowed elsewhere: O0, O2 or O3"),
    Rule(("recompute", "mode"), lambda recompute, mode: recompute and mode == 1,
         "only graphs compute again; allowed: mode 0, or recompute False"),
    Rule(("device_id", "distributed"), lambda device, distributed: device is not None and distributed,
         "the ranks would share one device; leave device_id out"),
    Rule(("dataset", "label_file"), lambda dataset, labels: labels is not None and dataset != "image_folder",
         "only image_folder reads labels from a file"),
    Rule(("pretrained", "ckpt_path"), lambda pretrained, path: pretrained and path is not None,
         "two sources of the first weights; leave one out"),
    Rule(("pretrained", "model"), lambda pretrained, model: pretrained and model is None,
         "pretrained weights need the name of a model"),
    Rule(("opt", "betas"), lambda opt, betas: betas is not None and len(betas) != (3 if opt == "adan" else 2),
         "adan takes 3 betas, the others 2"),
    Rule(("unscale_lr", "scheduler", "lr", "min_lr"),
         lambda unscaled, scheduler, lr, low: unscaled and scheduler == "cosine_decay" and low > lr,
         "the learning rate would rise; allowed: min_lr at most lr"),
    Rule(("loss", "bce_target_threshold"), lambda loss, threshold: threshold is not None and loss != "BCE",
         "the threshold belongs to loss BCE"),
)


def check_combinations(values: Mapping[str, Any], origins: Mapping[str, str], checked: Iterable[str]) -> list[str]:
    """A line for each rule that is broken among the ``checked`` keys (those in use, and right by themselves)."""
    checked = set(checked)
    return [
        ", ".join(f"{key} {values[key]} ({origins[key]})" for key in rule.keys) + f": {rule.why}"
        for rule in RULES
        if checked.issuperset(rule.keys) and rule.broken(*(values[key] for key in rule.keys))
    ]
