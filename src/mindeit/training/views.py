"""Test-time augmentation: logits averaged over views of each image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

import numpy as np

from mindeit.data.transforms import middle

Run = Callable[[np.ndarray], np.ndarray]


def averaged(run: Run, kind: str, size: int) -> Run:
    """``run`` takes images (batch, 3, size, size) to logits; the result takes images of which views are cut, and gives
    the mean of their logits."""

    def mean(images: np.ndarray) -> np.ndarray:
        logits = [run(np.ascontiguousarray(view)) for view in VIEWS[kind](images, size)]
        return sum(logits[1:], logits[0]) / len(logits)

    return mean


def of_classes(run: Run, classes: np.ndarray) -> Run:
    """The logits of these classes alone, in their order."""
    return lambda images: run(images)[:, classes]


def flips(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The images, and their mirror images."""
    yield images
    yield images[..., ::-1]


def five_crops(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The middle of larger images, and their corners."""
    first, last = 0, images.shape[-1] - size
    inside = middle(images.shape[-1], size)[0]
    for top, left in ((inside, inside), (first, first), (first, last), (last, first), (last, last)):
        yield images[..., top : top + size, left : left + size]


VIEWS: dict[str, Callable[[np.ndarray, int], Iterator[np.ndarray]]] = {"flip": flips, "5crop": five_crops}
