"""Random crops of the training pipeline. Boxes are (left, top, width, height)."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from mindeit.data.resizing import resized_part, short_side_size
from mindeit.data.sampler import pick

Box = tuple[int, int, int, int]
_TRIES = 10


def draw_crop_box(
    rng: np.random.Generator,
    width: int,
    height: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A box of a random share of the area and a random (log-uniform) width over height; after ten boxes that do not
    fit, the largest middle one of an allowed shape."""
    for _ in range(_TRIES):
        area = rng.uniform(*scale) * width * height
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w <= width and h <= height:
            top, left = pick(rng, height - h + 1), pick(rng, width - w + 1)
            return left, top, w, h
    return middle_box(width, height, ratio)


def middle_box(width: int, height: int, ratio: tuple[float, float]) -> Box:
    w, h = width, height
    if width / height < min(ratio):
        h = round(width / min(ratio))
    elif width / height > max(ratio):
        w = round(height * max(ratio))
    return (width - w) // 2, (height - h) // 2, w, h


def resized_crop(image: Image.Image, box: Box, size: int, resample: int) -> Image.Image:
    """The box, resized to (size, size). Cropped first: the filter must not see pixels outside the box."""
    left, top, width, height = box
    cropped = image.crop((left, top, left + width, top + height))
    return cropped if cropped.size == (size, size) else cropped.resize((size, size), resample)


def padded_crop(image: Image.Image, size: int, left: int, top: int, resample: int, padding: int = 4) -> Image.Image:
    """DeiT III's simple random crop: short side to ``size``, a mirrored border, and the (size, size) at (left, top)."""
    resized = short_side_size(*image.size, size)
    columns, rows = (_mirrored(start - padding, size, length) for start, length in zip((left, top), resized))
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    pixels = np.asarray(resized_part(image, resized, resample, box))
    return Image.fromarray(pixels[np.ix_(rows - box[1], columns - box[0])])


def _mirrored(first: int, count: int, length: int) -> np.ndarray:
    """``count`` positions from ``first`` on; those outside the axis are mirrored into it."""
    period = max(1, 2 * (length - 1))
    positions = np.arange(first, first + count) % period
    return np.minimum(positions, period - positions)


def draw_padded_corner(
    rng: np.random.Generator, width: int, height: int, size: int, padding: int = 4
) -> tuple[int, int]:
    """(left, top) for `padded_crop` of an image that is (width, height) before it is resized."""
    left, top = (pick(rng, side + 2 * padding - size + 1) for side in short_side_size(width, height, size))
    return left, top
