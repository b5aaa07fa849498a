"""Colour jitter and DeiT III's 3-Augment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from mindeit.data.sampler import pick

_JITTERED = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}
THREE_AUGMENT = ("gray", "solarize", "blur")
_BLUR_RADIUS = (0.1, 2.0)


def draw_jitter(rng: np.random.Generator, strength: float) -> list[tuple[str, float]]:
    """Brightness, contrast and saturation in random order, each with a factor of 1 - strength ... 1 + strength."""
    names = tuple(_JITTERED)
    return [(names[i], rng.uniform(max(0.0, 1 - strength), 1 + strength)) for i in rng.permutation(len(names))]


def jitter(image: Image.Image, factors: Sequence[tuple[str, float]]) -> Image.Image:
    for name, factor in factors:
        image = _JITTERED[name](image).enhance(factor)
    return image


def draw_three_augment(rng: np.random.Generator) -> tuple[str, float]:
    """(one of gray, solarize and blur; the blur's radius)."""
    return THREE_AUGMENT[pick(rng, len(THREE_AUGMENT))], rng.uniform(*_BLUR_RADIUS)


def three_augment(image: Image.Image, name: str, radius: float) -> Image.Image:
    if name == "gray":
        return image.convert("L").convert("RGB")
    if name == "solarize":
        return ImageOps.solarize(image)
    return image.filter(ImageFilter.GaussianBlur(radius))
