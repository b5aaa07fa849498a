"""What the tests of deployment share: small checkpoints, export.py in this process, and a file's results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from test_validate import run_main

from mindeit.models.registry import build, spec
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.card import card_for

DEIT, REGNET = "deit_mini_distilled_patch8_32", "regnety_mini_32"


def write_checkpoint(folder: Path, name: str, num_classes: int = 10, image_size: int = 32, **card: Any) -> Path:
    """Random weights with a head that is far from even scores, statistics that are not 0 and 1, and named classes."""
    rng, state = np.random.default_rng(4), {}
    for parameter in build(name, num_classes=num_classes, image_size=image_size).get_parameters():
        values = parameter.asnumpy()
        if values.ndim == 1:
            values = values + 0.2 * rng.random(values.shape).astype(np.float32)
        state[parameter.name] = 10 * values if parameter.name.startswith("head") and values.ndim > 1 else values
    names = tuple(f"kind {number}" for number in range(num_classes))
    filled = replace(card_for(spec(name), num_classes, image_size, names), mean=(0.4, 0.5, 0.6))
    checkpoints.write(folder / f"{name}.ckpt", state, replace(filled, **card))
    return folder / f"{name}.ckpt"


def export(monkeypatch, checkpoint: Path, target: Path, *words: str) -> int:
    """export.py's exit code; the format by the suffix of ``target``."""
    options = ["--ckpt_path", str(checkpoint), "--format", target.suffix[1:].upper(), "--output", str(target), *words]
    return run_main("export.py", options, monkeypatch)


def digits(count: int, size: int = 32) -> np.ndarray:
    """uint8 images (count, size, size, 3)."""
    from mindeit.data import open_source

    source = open_source("digits", None, "val")
    return np.stack([np.asarray(source.read(index).convert("RGB").resize((size, size))) for index in range(count)])
