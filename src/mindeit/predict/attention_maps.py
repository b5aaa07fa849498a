"""What a transformer looks at: the last block's heads, and attention rollout over all blocks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class AttentionMaps(NamedTuple):
    """Of one image: ``rollout`` (grid, grid), and ``heads`` (heads, grid, grid) of the last block."""

    rollout: np.ndarray
    heads: np.ndarray

    @classmethod
    def of(cls, blocks: Sequence[np.ndarray], extra_tokens: int, token: int = 0) -> AttentionMaps:
        return cls(rollout(blocks, extra_tokens, token), class_token_heads(blocks[-1], extra_tokens, token))


def class_token_heads(last_block: np.ndarray, extra_tokens: int, token: int = 0) -> np.ndarray:
    """(heads, asking tokens, tokens) -> (heads, grid, grid): how much the class token takes from each patch.

    ``token`` says which one, where each class has its own.
    """
    return _as_grid(last_block[:, token, extra_tokens:])


def rollout(blocks: Sequence[np.ndarray], extra_tokens: int, token: int = 0) -> np.ndarray:
    """Blocks of (heads, asking tokens, tokens) -> (grid, grid): attention followed through all blocks.

    Abnar and Zuidema's rule (https://arxiv.org/abs/2005.00928): heads averaged, half of each token passes by unchanged.
    Class tokens that join late (CaiT, PatchConvnet) ask in blocks of their own, which end the list.
    """
    means = [block.mean(0) for block in blocks]
    among = [mean for mean in means if extra_tokens and mean.shape[0] == mean.shape[1]]
    asking = means[len(among) :]
    paths = np.eye(among[0].shape[0] if among else asking[0].shape[1] - extra_tokens)
    for mean in among:
        paths = 0.5 * mean @ paths + 0.5 * paths
    if not asking:
        return _as_grid(paths[0, extra_tokens:])
    seen = np.zeros(paths.shape[1])  # a fresh class token holds nothing of any patch
    for mean in asking:
        own, patches = mean[token, :extra_tokens].sum(), mean[token, extra_tokens:]
        seen = 0.5 * (own * seen + patches @ paths) + 0.5 * seen
    return _as_grid(seen)


def _as_grid(rows: np.ndarray) -> np.ndarray:
    side = round(rows.shape[-1] ** 0.5)
    return rows.reshape(*rows.shape[:-1], side, side)


def file_names(images: Sequence[str], folder: str) -> list[str]:
    """The PNG for each image: ``folder/bird_attention.png``, with a number if that name is taken or is an image."""
    taken = {os.path.realpath(image) for image in images}
    paths = []
    for image in images:
        stem = os.path.join(folder, f"{Path(image).stem}_attention")
        names = (f"{stem}{ending}" for ending in (".png", *(f"_{number}.png" for number in range(2, len(taken) + 3))))
        paths.append(next(name for name in names if os.path.realpath(name) not in taken))
        taken.add(os.path.realpath(paths[-1]))
    return paths


def unnormalised(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """(3, S, S) as the model sees it -> the image a person sees."""
    values = pixels.transpose(1, 2, 0) * np.asarray(std) + np.asarray(mean)
    return Image.fromarray((values * 255).round().clip(0, 255).astype(np.uint8))
