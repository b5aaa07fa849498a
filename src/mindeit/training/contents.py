"""Describes the content of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mindeit.files import PathLike, existing_file
from mindeit.training import run_checkpoints
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.card import ModelCard
from mindeit.weights.hub import local_path, weights_in
from mindeit.weights.load import load_weights

_MOST_NAMES = 10


def show(path: PathLike) -> list[str]:
    """Lines on a training checkpoint, or any weights that `load_weights` reads. The whole file is read and checked."""
    file = existing_file(weights_in(local_path(path)))
    record = checkpoints.read_record(file) if file.suffix == ".ckpt" else None
    if record is None:
        weights, card = load_weights(path)
        return [f"{path}: weights, {_size(file)}", *_card(card), f"weights: {_tensors(weights)}"]
    state = run_checkpoints.load(file)
    average = "no average" if state.ema is None else "and their average"
    return [
        f"{path}: training checkpoint, {_size(file)}, sound",
        *_card(state.card),
        f"weights: {_tensors(state.model)}, {average}; used: {record['use']}",
        *_run(record),
    ]


def _size(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.1f} MB"


def _card(card: ModelCard) -> Iterator[str]:
    yield (
        f"model: {card.model}, {card.image_size} pixels, crop {card.crop_pct}, mean {list(card.mean)}, "
        f"std {list(card.std)}"
    )
    names = card.class_names or ()
    more = ", ..." if len(names) > _MOST_NAMES else ""
    yield f"classes: {card.num_classes} ({', '.join(names[:_MOST_NAMES]) or 'without names'}{more})"
    if card.temperature:
        yield f"temperature: {card.temperature:.4g}, by which logits are divided for calibrated scores"


def _tensors(state: Mapping[str, np.ndarray]) -> str:
    kinds = ", ".join(sorted({str(value.dtype) for value in state.values()}))
    return f"{len(state)} tensors, {sum(value.size for value in state.values()) / 1e6:.2f} M values, {kinds}"


def _run(record: Mapping[str, Any]) -> Iterator[str]:
    """Epochs, figures, how the run was made, and its configuration without what is None or off."""
    inside = f", and {record['batch']} batches of the next" if record["batch"] else ""
    yield f"epoch: {record['epoch']}{inside}; {record['step']} updates"
    yield f"optimizer: {record['opt']}"
    for title in ("figures", "made"):
        for key, value in (record.get(title) or {}).items():
            if key not in ("epoch", "step"):
                yield f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}"
    settings = record.get("config", {}).items()
    yield "set: " + ", ".join(f"{key} {value}" for key, value in settings if value not in (None, False, [], ""))
