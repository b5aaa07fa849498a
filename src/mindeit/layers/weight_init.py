"""Initial values of the official models, drawn from NumPy's global generator, which ``mindspore.set_seed`` seeds: so
are MindSpore's own initialisers, that some layers have theirs from. `seeded` keeps others out of it.

The official truncation lies at +-2, a hundred standard deviations out, so the draw is a normal one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from mindspore import Tensor

_drawing = ContextVar("drawing", default=True)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What is built inside depends on ``seed`` alone; then NumPy's generator goes on as if nothing had been drawn."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)


@contextmanager
def left_out() -> Iterator[None]:
    """What is built inside has zeros where it would draw, which takes most of building a large model: for models that
    are filled from a file."""
    token = _drawing.set(False)
    try:
        yield
    finally:
        _drawing.reset(token)


def truncated_normal(shape: tuple[int, ...], std: float = 0.02) -> Tensor:
    if not _drawing.get():
        return zeros(shape)
    return Tensor((np.random.standard_normal(shape) * std).clip(-2, 2).astype(np.float32))


def uniform(shape: tuple[int, ...], bound: float) -> Tensor:
    if not _drawing.get():
        return zeros(shape)
    return Tensor(np.random.uniform(-bound, bound, shape).astype(np.float32))


def zeros(shape: tuple[int, ...]) -> Tensor:
    return constant(shape, 0)


def constant(shape: tuple[int, ...], value: float) -> Tensor:
    return Tensor(np.full(shape, value, np.float32))
