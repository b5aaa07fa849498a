"""Shear and translation along one axis: Pillow's bicubic transform, bit for bit, at half its cost.

Pillow weighs 4x4 pixels for each result. Nothing moves along the other axis, so only the 4 in the row matter.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from mindeit.data.transforms import channels


def shear_rows(image: Image.Image, factor: float, shift: float, fill: tuple[int, ...]) -> Image.Image | None:
    """`image.transform(size, AFFINE, (1, factor, shift, 0, 1, 0), BICUBIC, fillcolor=fill)` of an RGB image.

    None in the rare case that rounding maps two pixels of a row to the same one: then Pillow has to do it.
    """
    width, height = image.size
    columns, rows = np.arange(width), np.arange(height)[:, None]
    source = (columns + 0.5) + factor * (rows + 0.5)  # the order of the additions is Pillow's
    source += shift
    outside = (source < 0) | (source >= width)
    source -= 0.5
    low = np.floor(source)
    if (low != low[:, :1] + columns).any():
        return None
    source -= low  # how far between two pixels
    taps = low[:, :1].astype(np.int64) + np.arange(-1, width + 2)
    np.minimum(np.maximum(taps, 0, out=taps), width - 1, out=taps)
    taps += rows * width
    planes = [_weigh(np.take(channel, taps, mode="clip"), source) for channel in channels(image)]
    for plane, value in zip(planes, fill):
        plane[outside] = value
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])


def shear_columns(image: Image.Image, factor: float, shift: float, fill: tuple[int, ...]) -> Image.Image | None:
    """The same with x and y exchanged."""
    sheared = shear_rows(image.transpose(Image.Transpose.TRANSPOSE), factor, shift, fill)
    return None if sheared is None else sheared.transpose(Image.Transpose.TRANSPOSE)


def _weigh(taps: np.ndarray, between: np.ndarray) -> np.ndarray:
    """taps: uint8 (H, W + 3), between: float64 (H, W). The cubic through four neighbours (a = -1), cut to uint8."""
    width = between.shape[1]
    a, b, c, d = (taps[:, k : k + width].astype(np.int16) for k in range(4))
    cubic = (b - a) + (d - c)
    value = cubic * between
    value += (a - b) - cubic
    value *= between
    value += c - a
    value *= between
    value += b
    np.minimum(np.maximum(value, 0, out=value), 255, out=value)
    return value.astype(np.uint8)
