"""Deterministic weights and images of the reference runs, and the numbers the official code gave for them.

A tensor is drawn from a generator seeded by the CRC-32 of its name; its last name part and rank decide the rule.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
SHAPES = json.loads((GOLDEN / "official_shapes.json").read_text())
NUMBERS = json.loads((GOLDEN / "models.json").read_text())
MEAN, STD = (np.array(values, np.float32)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def golden(key: str) -> np.ndarray:
    return np.load(GOLDEN / "models.npz")[key]


def _generator(text: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(text.encode())))


def reference_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng, leaf = _generator(name), name.rpartition(".")[2]
    if leaf == "running_var":
        return (0.5 + rng.random(shape)).astype(np.float32)
    if leaf.startswith("gamma_"):  # LayerScale's
        return (0.05 + 0.25 * rng.random(shape)).astype(np.float32)
    values = rng.standard_normal(shape)
    if leaf in ("pos_embed", "cls_token", "dist_token"):
        values = 0.3 * values
    elif leaf in ("bias", "beta", "running_mean"):
        values = 0.1 * values
    elif len(shape) == 1:
        values = 1 + 0.2 * values
    else:
        values *= 0.8 / math.sqrt(math.prod(shape[1:]))
    return values.astype(np.float32)


def official_state(name: str) -> dict[str, np.ndarray]:
    """Weights under official names. ``NAME|eps`` shrinks the tokens, so that a wrong norm epsilon shows."""
    base, _, probe = name.partition("|")
    state = {key: reference_tensor(key, tuple(shape)) for key, shape in SHAPES[base].items()}
    if probe == "eps":
        small = ("pos_embed", "cls_token", "dist_token", "patch_embed.proj.weight", "patch_embed.proj.bias")
        state.update({key: state[key] * np.float32(0.003) for key in small if key in state})
    return state


def direction(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Noise a gradient is projected on."""
    return _generator(f"direction:{name}").standard_normal(shape)


def images(count: int = 2, size: int = 224, salt: str = "image") -> np.ndarray:
    """Waves, blobs and a little grain, rounded to 8 bits and normalised: float32 (count, 3, size, size)."""
    return np.stack([_image(_generator(f"{salt}/{size}/{number}"), size) for number in range(count)])


def _image(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    image = np.ones((3, size, size)) * (0.25 + 0.5 * rng.random(3))[:, None, None]
    for _ in range(6):
        fx, fy, phase = rng.random(3)
        strength = 0.22 * (rng.random(3) - 0.5)
        wave = np.sin(2 * math.pi * ((1 + 9 * fx) * x + (1 + 9 * fy) * y + phase))
        image += strength[:, None, None] * wave
    for _ in range(5):
        cx, cy, radius = rng.random(3)
        strength = 0.9 * (rng.random(3) - 0.5)
        width = 0.03 + 0.15 * radius
        image += strength[:, None, None] * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2))
    image += 0.06 * (rng.random((3, size, size)) - 0.5)
    levels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    return (levels.astype(np.float32) / np.float32(255) - MEAN) / STD


def table(name: str, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """What stands in for a teacher's answers."""
    return (scale * _generator(f"table:{name}").standard_normal(shape)).astype(np.float32)


def samples(values: np.ndarray, count: int = 16) -> np.ndarray:
    """The places of a tensor that the reference keeps: ``count``, evenly spread, or all of a small one."""
    flat = np.asarray(values, np.float64).reshape(-1)
    if flat.size < count:
        return flat
    return flat[[i * (flat.size - 1) // (count - 1) for i in range(count)]]
