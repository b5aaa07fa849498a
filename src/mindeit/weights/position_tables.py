"""A position table for another resolution, as DeiT's fine-tuning makes it (upstream main.py): bicubic, a = -0.75."""

from __future__ import annotations

import math

import numpy as np

from mindeit.errors import UserError

_A = -0.75  # PyTorch's choice; MindSpore's resize has -0.5


def resize_pos_embed(table: np.ndarray, extra_tokens: int, new_grid: int) -> np.ndarray:
    """(1, extra + G*G, C) -> (1, extra + new_grid**2, C) float32; the extra tokens come first and stay as they are."""
    extra, patches = table[0, :extra_tokens], table[0, extra_tokens:]
    grid = math.isqrt(len(patches))
    if grid * grid != len(patches) or grid == 0:
        raise UserError(f"the position table has {len(patches)} patches, which is no square grid")
    if grid == new_grid:
        return table
    weights = bicubic_weights(grid, new_grid)
    square = patches.reshape(grid, grid, -1).astype(np.float64)
    resized = np.einsum("yi,xj,ijc->yxc", weights, weights, square, optimize=True).reshape(new_grid**2, -1)
    return np.concatenate([extra, resized.astype(np.float32)])[None]


def bicubic_weights(old: int, new: int) -> np.ndarray:
    """(new, old): how much each old sample counts. Pixel centres align, borders repeat, nothing is smoothed."""
    position = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(position).astype(int)
    weights = np.zeros((new, old))
    for tap in (-1, 0, 1, 2):
        neighbour = np.clip(first + tap, 0, old - 1)
        np.add.at(weights, (np.arange(new), neighbour), _cubic(np.abs(position - first - tap)))
    return weights


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel at distances 0 <= x <= 2."""
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
    return np.where(x <= 1, near, far)
