"""Random erasing: boxes of noise or black in the normalised image."""

from __future__ import annotations

import math

import numpy as np

from mindeit.data.sampler import pick
from mindeit.errors import UserError, nearest

MODES = ("pixel", "rand", "const")
_AREA = (0.02, 1 / 3)
_ASPECT = (0.3, 1 / 0.3)
_TRIES = 10


def draw_erase_boxes(
    rng: np.random.Generator, height: int, width: int, count: tuple[int, int] = (1, 1)
) -> list[tuple[int, int, int, int]]:
    """Boxes (top, left, height, width) that share an area of 2..33 % of the image; height over width log-uniform."""
    number = count[0] + pick(rng, count[1] - count[0] + 1)
    boxes = []
    for _ in range(number):
        for _ in range(_TRIES):
            area = rng.uniform(*_AREA) * height * width / number
            aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                top, left = pick(rng, height - h + 1), pick(rng, width - w + 1)
                boxes.append((top, left, h, w))
                break
    return boxes


class RandomErasing:
    """In place on float32 (3, H, W). Mode ``pixel``: normal noise; ``rand``: one normal colour a box; ``const``: 0."""

    def __init__(self, probability: float, mode: str = "pixel", count: int = 1) -> None:
        if mode not in MODES:
            raise UserError(f"random erasing mode is '{mode}'; allowed: {', '.join(MODES)}{nearest(mode, MODES)}")
        if not 0 <= probability <= 1 or count < 1:
            raise UserError(f"random erasing: probability {probability} (allowed 0..1), count {count} (1 or more)")
        self._probability, self._mode, self._count = probability, mode, (1, count)

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> None:
        if rng.random() >= self._probability:
            return
        _, image_height, image_width = pixels.shape
        for top, left, height, width in draw_erase_boxes(rng, image_height, image_width, self._count):
            pixels[:, top : top + height, left : left + width] = self._fill(rng, len(pixels), height, width)

    def _fill(self, rng: np.random.Generator, channels: int, height: int, width: int) -> np.ndarray:
        if self._mode == "const":
            return np.zeros((channels, 1, 1), np.float32)
        shape = (channels, height, width) if self._mode == "pixel" else (channels, 1, 1)
        return rng.standard_normal(shape, np.float32)
