"""A part of a resized image, bit for bit as Pillow would make the whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from mindeit.errors import UserError

Box = tuple[int, int, int, int]  # left, top, right, bottom
_WHOLE = 1 << 24  # pixels; of a larger image only a part is made: its shape is extreme, or it is a decompression bomb
_PRECISION = 32 - 8 - 2  # bits of Pillow's weights behind the point


class Filter(NamedTuple):
    """``support``: how many pixels it reaches to either side."""

    support: float
    weight: Callable[[np.ndarray], np.ndarray]


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _cubic(x: np.ndarray) -> np.ndarray:
    x, a = np.abs(x), -0.5
    near, far = ((a + 2.0) * x - (a + 3.0)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


_FILTERS: dict[int, Filter] = {
    Image.Resampling.BILINEAR: Filter(1.0, _triangle),
    Image.Resampling.BICUBIC: Filter(2.0, _cubic),
}


def short_side_size(width: int, height: int, size: int) -> tuple[int, int]:
    """The shorter side becomes ``size``; the longer one is truncated to whole pixels."""
    long = int(size * max(width, height) / min(width, height))
    return (size, long) if width <= height else (long, size)


def resized_part(image: Image.Image, size: tuple[int, int], resample: int, box: Box) -> Image.Image:
    """``image.resize(size, resample).crop(box)``; if the result is large, only the box is computed."""
    if size == image.size:
        return image.crop(box)
    shrinks = size[0] < image.width or size[1] < image.height  # then the result is below the limit for images
    if shrinks or size[0] * size[1] <= _WHOLE:
        return image.resize(size, resample).crop(box)
    if resample not in _FILTERS:
        raise UserError(f"an image of {image.width}x{image.height} pixels would be resized to {size[0]}x{size[1]}")
    columns = _Weights(image.width, size[0], box[0], box[2], _FILTERS[resample])
    rows = _Weights(image.height, size[1], box[1], box[3], _FILTERS[resample])
    part = np.asarray(image.crop((columns.first, rows.first, columns.last, rows.last)))
    part = columns.apply(part.transpose(1, 0, 2)).transpose(1, 0, 2)  # Pillow's order, where an image grows
    return Image.fromarray(np.ascontiguousarray(rows.apply(part)))


class _Weights:
    """What each of the positions ``begin`` to ``end`` along an axis that grows from ``length`` to ``target`` is made
    of: the pixels from ``first`` to ``last``, in Pillow's arithmetic (`Resample.c`)."""

    def __init__(self, length: int, target: int, begin: int, end: int, kind: Filter) -> None:
        self._same = length == target
        if self._same:
            self.first, self.last = begin, end
            return
        centers = (np.arange(begin, end) + 0.5) * (length / target)
        lows = np.maximum((centers - kind.support + 0.5).astype(np.int64), 0)
        highs = np.minimum((centers + kind.support + 0.5).astype(np.int64), length)
        taps = lows[:, None] + np.arange(math.ceil(kind.support) * 2 + 1)
        weights = kind.weight(taps - centers[:, None] + 0.5)
        weights[taps >= highs[:, None]] = 0.0
        weights /= np.cumsum(weights, 1)[:, -1:]  # one by one: a sum in pairs would round otherwise
        whole = weights * (1 << _PRECISION)
        self._weights = np.trunc(np.where(weights < 0, whole - 0.5, whole + 0.5)).astype(np.int64)
        self.first, self.last = int(lows.min()), int(highs.max())
        self._taps = np.minimum(taps, highs[:, None] - 1) - self.first

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (last - first, ...) -> uint8 (end - begin, ...)."""
        if self._same:
            return pixels
        total = np.full((len(self._weights), *pixels.shape[1:]), 1 << (_PRECISION - 1), np.int64)
        for taps, weights in zip(self._taps.T, self._weights.T):
            total += pixels[taps] * weights[:, None, None]
        return np.clip(total >> _PRECISION, 0, 255).astype(np.uint8)
