"""Small images as text that a page holds: data addresses."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

SIDE = 160  # pixels of the longer side, at most; smaller images are enlarged to it


def address(image: Image.Image) -> str:
    """The image at most `SIDE` pixels wide and high, as JPEG in a ``data:`` address."""
    scale = SIDE / max(image.size)
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), _filter(scale))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _filter(scale: float) -> Image.Resampling:
    return Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC  # pixels of a tiny image are shown


def overlay(image: Image.Image, attention: np.ndarray) -> Image.Image:
    """(grid, grid) over the image, smooth: dark where the model looked little, as the image is where it looked most."""
    low, high = float(attention.min()), float(attention.max())
    scaled = Image.fromarray(((attention - low) / max(high - low, 1e-12)).astype(np.float32))
    side = max(SIDE, *image.size)
    large = image.resize((side * image.width // max(image.size), side * image.height // max(image.size)), _filter(2))
    seen = np.asarray(scaled.resize(large.size, Image.Resampling.BICUBIC)).clip(0, 1)[..., None]
    pixels = np.asarray(large, np.float32)
    grey = pixels.mean(-1, keepdims=True)
    return Image.fromarray((seen * pixels + (1 - seen) * (0.25 * grey + 20)).clip(0, 255).astype(np.uint8))
