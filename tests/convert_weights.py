"""Random weights under the official names, and files like those the authors publish."""

from __future__ import annotations

import argparse
import functools
import zlib
from pathlib import Path

import numpy as np
import torch

from mindeit.models.registry import spec
from mindeit.torch_reference.build import build_reference

TINY = "deit_tiny_patch16_224"
DISTILLED = "deit_tiny_distilled_patch16_224"


def official_shapes(name: str, num_classes: int = 1000, image_size: int = 224) -> dict[str, tuple[int, ...]]:
    return _shapes(name, num_classes, image_size, str(spec(name).variant))  # which some tests make smaller for a while


@functools.cache
def _shapes(name: str, num_classes: int, image_size: int, variant: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        reference = build_reference(name, num_classes=num_classes, image_size=image_size)
    return {key: tuple(value.shape) for key, value in reference.state_dict().items()}


def official_state(name: str, num_classes: int = 1000, image_size: int = 224) -> dict[str, np.ndarray]:
    """Every tensor from its own name's seed, scaled so that signals keep their size through the network."""
    return _state(name, num_classes, image_size, str(spec(name).variant))


@functools.lru_cache(maxsize=4)
def _state(name: str, num_classes: int, image_size: int, variant: str) -> dict[str, np.ndarray]:
    return {key: _tensor(key, shape) for key, shape in _shapes(name, num_classes, image_size, variant).items()}


def _tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.array(random.integers(1, 10**6), np.int64)
    if name.endswith("running_var"):
        values = 0.5 + random.random(shape)
    elif len(shape) > 1:
        values = random.standard_normal(shape) * 0.8 / np.prod(shape[1:]) ** 0.5
    elif name.endswith("weight"):
        values = 1 + 0.2 * random.standard_normal(shape)
    else:
        values = 0.1 * random.standard_normal(shape)
    return values.astype(np.float32)


def tensors(state: dict[str, np.ndarray], prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: torch.from_numpy(array.copy()) for name, array in state.items()}


def write_pth(path: Path, state: dict[str, np.ndarray]) -> Path:
    torch.save({"model": tensors(state)}, path)
    return path


def training_checkpoint(state: dict[str, np.ndarray], ema: dict[str, np.ndarray]) -> dict:
    """What the official main.py saves, with a NumPy number among its statistics."""
    return {
        "model": tensors(state),
        "model_ema": tensors(ema),
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3}]},
        "lr_scheduler": {"base_values": [1e-3], "best": np.float64(72.5), "epoch": np.int64(7)},
        "scaler": {},
        "epoch": 7,
        "args": argparse.Namespace(model=TINY, lr=5e-4, output_dir="out"),
    }


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    def rows(state):
        return [(name, a.dtype.str, a.shape, a.tobytes()) for name, a in state.items()]

    return rows(one) == rows(other)
