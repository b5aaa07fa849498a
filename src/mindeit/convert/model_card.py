"""The README.md of a folder for timm and the Hugging Face hub: what is known of the weights, and how to load them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mindeit.convert.parity import Report
from mindeit.models.registry import spec
from mindeit.models.spec import Published
from mindeit.version import __version__
from mindeit.weights import checkpoint
from mindeit.weights.card import ModelCard
from mindeit.weights.download import has_right_hash
from mindeit.weights.hub import is_on_hub
from mindeit.weights.timm_folder import timm_form

REPOSITORY = "https://github.com/facebookresearch/deit"
_TRAINED = (  # settings of a run that a reader asks for first
    "image_size epoch_size opt lr weight_decay batch_size scheduler warmup_epochs loss label_smoothing mixup cutmix "
    "auto_augment re_prob aug_repeats drop_path_rate distillation_type teacher ema pretrained seed"
)


def model_card(
    card: ModelCard, *, source: Path, target: str, report: Report | None = None, use_ema: bool = False
) -> str:
    """Facts alone: of the card, of the training run that the checkpoint records, of the official file."""
    record = checkpoint.read_record(source) if source.suffix == ".ckpt" else None
    official = _official(card, source)
    parts = [
        _head(official is not None),
        f"# {card.model}",
        _what(card),
        *(_published(card, official) if official else ()),
        *(_run(card, source, record, use_ema) if record else ()),
        *(_parity(report) if report else ()),
        _usage(target),
        *([] if official else [_NO_LICENCE]),
    ]
    return "\n\n".join(parts) + "\n"


def _head(official: bool) -> str:
    """The authors published their weights under Apache 2.0; of other weights nobody has said."""
    tags = ("image-classification", "timm", "mindspore", "mindeit")
    lines = [*(["license: apache-2.0"] if official else []), "library_name: timm", "pipeline_tag: image-classification"]
    return "\n".join(["---", "tags:", *(f"- {tag}" for tag in tags), *lines, "---"])


def _what(card: ModelCard) -> str:
    form = timm_form(card.model)
    sizes = f" with {json.dumps(form.model_args)}" if form.model_args else ""
    rows = {
        "timm's name": f"`{form.architecture}`{sizes}",
        "classes": str(card.num_classes) if card.num_classes else "none: the model gives features",
        "images": f"{card.image_size} x {card.image_size}, crop {card.crop_pct:g}, {card.interpolation}",
        "mean, std": f"{list(card.mean)}, {list(card.std)}",
    }
    if card.temperature:
        rows["temperature"] = f"{card.temperature:.4g}, by which logits are divided for calibrated scores"
    return f"`{card.model}`, written by MinDeiT {__version__}.\n\n{_table(rows)}"


def _official(card: ModelCard, source: Path) -> Published | None:
    """The official file that ``source`` is, by its name, and its hash where the name holds one."""
    file = next((file for file in spec(card.model).files if file.file == source.name), None)
    return file if file is not None and has_right_hash(source, source.name) else None


def _published(card: ModelCard, file: Published) -> Iterator[str]:
    yield f"## Weights\n\nConverted from the authors' [{file.file}]({file.url}) ({REPOSITORY})."
    changed = (file.image_size or spec(card.model).image_size) != card.image_size or card.num_classes != 1000
    if changed:
        yield "The head or the resolution was changed since, so that their figures no longer hold."
    elif file.top1 is not None:
        top5 = f", {file.top5:g} % top-5" if file.top5 is not None else ""
        yield f"The authors report {file.top1:g} % top-1{top5} on ImageNet-1k (trained on: {file.trained_on})."


def _run(card: ModelCard, source: Path, record: Mapping[str, Any], use_ema: bool) -> Iterator[str]:
    """What a checkpoint of a training run says of it. Paths stay out, for they are the machine's own."""
    config, made = record.get("config") or {}, record.get("made") or {}
    averaged, data = use_ema or record["use"] == "ema", (config.get("dataset"), _last(config.get("data_dir")))
    rows = {
        "data": ", ".join(str(part) for part in data if part),
        "images to train on": record.get("images"),
        **_figures(card, source, record, averaged, config.get("val_split", "val")),
        "epoch, updates": f"{record['epoch']}, {record['step']}",
        "weights": "the average of the run's" if averaged else None,
        **{name: config.get(name) for name in _TRAINED.split()},
        "versions": made.get("versions"),
        "device": made.get("device"),
    }
    yield f"## Training\n\n{_table({name: value for name, value in rows.items() if value not in (None, '', 0, False)})}"


def _figures(
    card: ModelCard, source: Path, record: Mapping[str, Any], averaged: bool, split: str
) -> dict[str, str | None]:
    """None of them where the conversion changed the head or the resolution."""
    saved, figures, prefix = checkpoint.read_card(source), record.get("figures") or {}, "ema_" if averaged else ""
    if saved is None or (saved.num_classes, saved.image_size) != (card.num_classes, card.image_size):
        return {}
    return {
        f"top-1 on {split}": _figure(figures.get(f"{prefix}acc1"), " %"),
        f"top-5 on {split}": _figure(figures.get(f"{prefix}acc5"), " %"),
        "loss there": _figure(figures.get("ema_loss" if averaged else "val_loss"), ""),
    }


def _last(path: Any) -> str:
    return Path(path).name if isinstance(path, str) else ""


def _figure(value: Any, unit: str) -> str | None:
    return f"{value:.4g}{unit}" if isinstance(value, (int, float)) else None


def _parity(report: Report) -> Iterator[str]:
    yield (
        f"## Parity\n\nMeasured at conversion on 2 images ({report.versions}): the logits of the two frameworks differ "
        f"by at most {report.max_gap:.1e} of their standard deviation, by {report.mean_gap:.1e} in the mean."
    )


def _usage(target: str) -> str:
    on_hub = is_on_hub(target)
    place = target.removeprefix("hf://") if on_hub else "PATH/TO/THIS/FOLDER"
    timm, own = (f"hf-hub:{place}", target) if on_hub else (f"local-dir:{place}", place)
    return (
        "## Use\n\n```python\nimport timm\n\n"
        f'model = timm.create_model("{timm}", pretrained=True).eval()\n```\n\n'
        f'```python\nimport mindeit\n\npredictor = mindeit.Predictor("{own}")\n'
        'print(predictor.predict("image.jpg")[0].name)\n```'
    )


_NO_LICENCE = (
    "## Licence\n\nNone is stated: whoever publishes these weights adds a line `license: ...` at the head of this file."
)


def _table(rows: Mapping[str, Any]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])
