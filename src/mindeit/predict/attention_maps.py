"""Images of what a transformer looks at: the last block's heads, and attention rollout over all blocks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mindeit.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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


def draw(path: Path, image: Image.Image, maps: dict[str, np.ndarray], title: str) -> None:
    """One PNG: the image as the model saw it, then each map (grid, grid) as a heat overlay."""
    from matplotlib.figure import Figure  # optional: for these maps alone

    columns = min(6, 1 + len(maps))
    rows = -(-(1 + len(maps)) // columns)
    figure = Figure(figsize=(2.2 * columns, 2.4 * rows + 0.3), layout="constrained")
    figure.suptitle(title, fontsize=10, parse_math=False)  # a class may be named $5_$9
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    axes[0].imshow(image)
    axes[0].set_title("image", fontsize=9)
    for axis, (name, values) in zip(axes[1:], maps.items()):
        _overlay(axis, image, name, values)
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of a name that the font cannot show
        figure.savefig(temporary, dpi=120)


def _overlay(axis: Axes, image: Image.Image, name: str, values: np.ndarray) -> None:
    """Each map is scaled to its own range: it shows which places count more, not how much."""
    low, high = float(values.min()), float(values.max())
    heat = Image.fromarray(((values - low) / max(high - low, 1e-12)).astype(np.float32))
    axis.imshow(image)
    smooth = np.asarray(heat.resize(image.size, Image.Resampling.BICUBIC))
    axis.imshow(smooth, cmap="jet", alpha=0.45, vmin=0, vmax=1)
    axis.set_title(name, fontsize=9)


def unnormalised(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """(3, S, S) as the model sees it -> the image a person sees."""
    values = pixels.transpose(1, 2, 0) * np.asarray(std) + np.asarray(mean)
    return Image.fromarray((values * 255).round().clip(0, 255).astype(np.uint8))
