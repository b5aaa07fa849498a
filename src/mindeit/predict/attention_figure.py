"""The PNG of attention maps: the image as the model saw it, what it looked at in all, and what each head looked at."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image

from mindeit.files import atomic

SIDE = 224  # pixels; smaller images are enlarged, or a map over them would be as coarse as they are
PANEL = 2.4  # inches, of a map in the first row
MOST_COLUMNS = 6
COLOURS = "inferno"  # as bright as the attention is high, for eyes that see no colours too


def draw(
    path: Path, image: Image.Image, maps: Mapping[str, np.ndarray], heads: Sequence[np.ndarray], title: str
) -> None:
    """The image and ``maps`` (grid, grid) stand in the first row, ``heads`` below in rows of equal length."""
    made = figure_of(image, maps, heads, title)
    with atomic(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of a name that the font cannot show
        made.savefig(temporary, dpi=120)


def figure_of(image: Image.Image, maps: Mapping[str, np.ndarray], heads: Sequence[np.ndarray], title: str) -> Figure:
    """What `draw` saves."""
    top, columns = 1 + len(maps), head_columns(len(heads))
    rows, width = len(heads) // columns, PANEL * top
    lines = textwrap.wrap(title, round(10 * width))
    height = PANEL + rows * (width / columns + 0.2) + 0.7 + 0.2 * len(lines)
    made = Figure(figsize=(width, height), layout="constrained")
    made.suptitle("\n".join(lines), fontsize=12, parse_math=False)  # a class may be named $5_$9
    cells = math.lcm(top, columns)
    grid = made.add_gridspec(1 + rows, cells, height_ratios=[1 / top, *[1 / columns] * rows])
    large, wide, narrow = enlarged(image), cells // top, cells // columns
    for place, (name, values) in enumerate({"image": None, **maps}.items()):
        _panel(made.add_subplot(grid[0, place * wide : (place + 1) * wide]), large, name, values)
    for number, values in enumerate(heads):
        row, place = divmod(number, columns)
        axis = made.add_subplot(grid[1 + row, place * narrow : (place + 1) * narrow])
        _panel(axis, large, f"head {number}", values)
    _legend(made)
    return made


def head_columns(heads: int) -> int:
    """So many that all rows are full: 3 of 3, 4 of 8, 6 of 12; one row where none but long columns would be."""
    columns = max(number for number in range(1, MOST_COLUMNS + 1) if heads % number == 0)
    return columns if columns > 2 else heads


def enlarged(image: Image.Image) -> Image.Image:
    """By a whole factor, until the image is `SIDE` pixels wide."""
    factor = -(-SIDE // image.width)
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.BICUBIC)


def overlay(image: Image.Image, values: np.ndarray) -> np.ndarray:
    """(H, W, 3) in 0..1: the image in grey under the map (grid, grid), smooth and scaled to its own range.

    It shows which places count more, not how much.
    """
    low, high = float(values.min()), float(values.max())
    scaled = Image.fromarray(((values - low) / max(high - low, 1e-12)).astype(np.float32))
    heat = np.asarray(scaled.resize(image.size, Image.Resampling.BICUBIC)).clip(0, 1)
    return _blend(np.asarray(image.convert("L"), np.float32)[..., None] / 255, heat)


def _blend(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(H, W, 1) and (H, W), both in 0..1 -> (H, W, 3)."""
    share = 0.35 + 0.35 * heat[..., None]  # of the colour: where little is seen, the image stays
    return (1 - share) * grey + share * colormaps[COLOURS](heat)[..., :3]


def _panel(axis: Axes, image: Image.Image, name: str, values: np.ndarray | None) -> None:
    axis.imshow(image if values is None else overlay(image, values))
    axis.set_title(name, fontsize=9)
    axis.axis("off")


def _legend(figure: Figure) -> None:
    """A colour bar in the colours that a grey place gets."""
    levels = np.linspace(0, 1, 256)
    colours = ScalarMappable(cmap=ListedColormap(_blend(np.full((256, 1), 0.5), levels)))
    bar = figure.colorbar(colours, ax=figure.axes, location="bottom", shrink=0.4, aspect=30, pad=0.03, ticks=[])
    bar.outline.set_visible(False)
    bar.ax.set_title("attention, each map by its own range", fontsize=8)
    for place, word, side in ((-0.02, "little", "right"), (1.02, "much", "left")):
        bar.ax.text(place, 0.5, word, transform=bar.ax.transAxes, ha=side, va="center", fontsize=9)
