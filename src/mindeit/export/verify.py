"""Checks an export: the file is loaded and compared with the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mindeit.comparison import gap
from mindeit.data.transforms import Normalize
from mindeit.export.exported import Exported
from mindeit.export.metadata import ATTENTION, ATTENTION_HEADS, Description

# Largest difference allowed, in standard deviations of the model's own results.
LIMITS = {"fp32": 1e-4, "fp16": 3e-2, "fp16-weights": 3e-2}


@dataclass(frozen=True)
class Report:
    """``gaps``: the largest difference for each batch that was run, in ``unit``."""

    gaps: dict[int, float]
    limit: float
    unit: str = "the results' spread"

    @property
    def ok(self) -> bool:
        return all(gap <= self.limit for gap in self.gaps.values())  # False for NaN

    def __str__(self) -> str:
        found = ", ".join(f"{gap:.1e} (batch {size})" for size, gap in self.gaps.items())
        verdict = "ok" if self.ok else "DIFFERENT"
        return f"largest difference from the model: {found} of {self.unit}, limit {self.limit:.0e}: {verdict}"


def images(image_size: int) -> np.ndarray:
    """Three, uint8 (3, S, S, 3): soft shapes with some noise; noise alone gives nearly equal logits."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0 : 1 : image_size * 1j, 0 : 1 : image_size * 1j][:, None, :, :, None]
    fx, fy, phase = 2 * np.pi * rng.uniform(0, 4, (3, 3, 1, 1, 3))
    waves = np.sin(fx * x + fy * y + phase) + 0.3 * rng.standard_normal((3, image_size, image_size, 3))
    return (127 + 80 * waves).clip(0, 255).astype(np.uint8)


def normalised(levels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    normalise = Normalize(mean, std)
    return np.stack([normalise(Image.fromarray(image)) for image in levels])


def compare(path: Path, description: Description, wanted: list[np.ndarray]) -> Report:
    """``wanted``: the model's outputs for `images`. A file of any batch runs with two images and with three."""
    file = Exported(path)
    if file.description.as_dict() != description.as_dict():
        raise ValueError(f"{path} says {file.description}, not {description}")
    batch = normalised(images(description.card.image_size), file.card.mean, file.card.std)
    gaps = {}
    for count in (2, 3) if description.batch is None else (2,):
        got = file.outputs(batch[:count], at_once=count)
        gaps[count] = difference(got, [output[:count] for output in wanted], description)
    unit = f"{Report.unit}{' (attention: of its size)' * any(_maps(description))}"
    return Report(gaps, LIMITS[description.precision], unit)


def _maps(description: Description) -> list[bool]:
    return [name in (ATTENTION, ATTENTION_HEADS) for name in description.outputs]


def difference(got: list[np.ndarray], wanted: list[np.ndarray], description: Description) -> float:
    """In standard deviations; of attention maps, which are nearly even before training, in their own size."""
    if [output.shape for output in got] != [output.shape for output in wanted]:
        raise ValueError(
            f"results of shape {[output.shape for output in got]}, wanted {[output.shape for output in wanted]}"
        )
    sizes = [_size(own) if of_maps else 1.0 for own, of_maps in zip(wanted, _maps(description))]
    return max(float(gap(result, own).max()) / size for result, own, size in zip(got, wanted, sizes))


def _size(maps: np.ndarray) -> float:
    """In standard deviations."""
    exact = maps.astype(np.float64)
    return float(np.sqrt(np.square(exact).mean()) / max(exact.std(), np.finfo(np.float32).tiny))
