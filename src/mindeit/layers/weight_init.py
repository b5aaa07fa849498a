"""Initial values of the official models, drawn from NumPy's global generator, which ``device.seed`` seeds.

The official truncation lies at +-2, a hundred standard deviations out, so the draw is a normal one.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor


def truncated_normal(shape: tuple[int, ...], std: float = 0.02) -> Tensor:
    return Tensor((np.random.standard_normal(shape) * std).clip(-2, 2).astype(np.float32))


def uniform(shape: tuple[int, ...], bound: float) -> Tensor:
    return Tensor(np.random.uniform(-bound, bound, shape).astype(np.float32))


def zeros(shape: tuple[int, ...]) -> Tensor:
    return constant(shape, 0)


def constant(shape: tuple[int, ...], value: float) -> Tensor:
    return Tensor(np.full(shape, value, np.float32))
