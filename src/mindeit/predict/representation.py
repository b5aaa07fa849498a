"""What a vision transformer has learned: how far its heads look, its position table and its filters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mindeit.errors import UserError


def attention_distances(blocks: Sequence[np.ndarray], patch_size: int) -> np.ndarray:
    """Blocks of (images, heads, tokens, tokens) -> (blocks, heads): how far a patch looks on average, in pixels.

    Distances between the centres of patches, weighted by attention among patches alone, that is without what class
    tokens get; mean over patches and images. As in figure 7 of https://arxiv.org/abs/2010.11929, with `Predictor`:

        distances = attention_distances(predictor.attentions_of(images), patch_size=16)

    Blocks in which class tokens alone ask (CaiT, PatchConvnet) have no distance and are left out.
    """
    among = [block for block in blocks if block.shape[-1] == block.shape[-2]]
    if not among:
        raise UserError("no block has attention among patches; allowed: DeiT, DeiT III and CaiT")
    grid, extra = _grid(among[0].shape[-1])
    apart = patch_size * _between(grid)
    found = []
    for block in among:
        weights = block[..., extra:, extra:]
        found.append((weights / weights.sum(-1, keepdims=True) * apart).sum(-1).mean((0, 2)))
    return np.stack(found)


def even_distance(grid: int, patch_size: int) -> float:
    """The distance of a head that looks at all patches alike: what `attention_distances` is measured against."""
    return float(patch_size * _between(grid).mean())


def position_similarities(table: np.ndarray) -> np.ndarray:
    """``pos_embed`` (1, tokens, dim) -> (grid, grid, grid, grid): cosines, [row, column] the map of one place.

    Class tokens, which come first, are left out.
    """
    grid, extra = _grid(table.shape[1])
    rows = table[0, extra:].astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows @ rows.T).reshape(grid, grid, grid, grid)


def principal_filters(weight: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """``patch_embed.proj.weight`` (dim, channels, P, P) -> its ``count`` first principal components (count, P, P,
    channels), each scaled to 0..1 to be looked at, with 0.5 for zero, and their shares of the variance (count,)."""
    dim, channels, size, _ = weight.shape
    most = min(dim, channels * size**2)
    if not 1 <= count <= most:
        raise UserError(f"count is {count}; allowed: 1 to {most}, as many as the filters have components")
    flat = weight.reshape(dim, -1).astype(np.float64)
    _, scales, components = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    chosen = components[:count].reshape(count, channels, size, size).transpose(0, 2, 3, 1)
    highest = np.abs(chosen).max((1, 2, 3), keepdims=True)
    return 0.5 + chosen / (2 * highest), scales[:count] ** 2 / (scales**2).sum()


def _grid(tokens: int) -> tuple[int, int]:
    """197 -> (14, 1): the side of the square of patches, and how many tokens come before it."""
    grid = math.isqrt(tokens)
    return grid, tokens - grid**2


def _between(grid: int) -> np.ndarray:
    """(patches, patches): distances of the places of a grid, in patches."""
    places = np.stack(np.divmod(np.arange(grid**2), grid), 1)
    return np.linalg.norm(places[:, None] - places[None], axis=-1)
