"""The training pipeline of one image, in timm's order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from mindeit.data.auto_augment import AutoAugment, auto_augment
from mindeit.data.color import draw_jitter, draw_three_augment, jitter, three_augment
from mindeit.data.crops import draw_crop_box, draw_padded_corner, padded_crop, resized_crop
from mindeit.data.random_erasing import RandomErasing
from mindeit.data.sampler import pick
from mindeit.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Normalize, interpolation_filter

THREE_AUGMENT_SPELLINGS = ("3-augment", "3augment", "three-augment", "three_augment", "3a")


class TrainTransform:
    """RGB image, generator -> float32 (3, S, S): crop, flip, augment, normalise, erase.

    auto_augment: see `mindeit.data.auto_augment`; ``3-augment``; or None, which leaves colour jitter alone.
    color_jitter: used without auto_augment and with ``3-augment``, as upstream.
    interpolation: ``random`` draws bilinear or bicubic for each image. simple_crop: DeiT III's ``src``.
    """

    def __init__(
        self,
        image_size: int,
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        hflip: float = 0.5,
        vflip: float = 0.0,
        interpolation: str = "bicubic",
        auto_augment: str | None = "rand-m9-mstd0.5-inc1",
        color_jitter: float = 0.3,
        erase_probability: float = 0.25,
        erase_mode: str = "pixel",
        erase_count: int = 1,
        simple_crop: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        self.image_size = image_size
        self._scale, self._ratio, self._hflip, self._vflip = scale, ratio, hflip, vflip
        self._simple_crop = simple_crop
        self._resamples = tuple(
            map(interpolation_filter, ("bilinear", "bicubic") if interpolation == "random" else (interpolation,))
        )
        self._three_augment = auto_augment in THREE_AUGMENT_SPELLINGS
        self._auto_augment = None if self._three_augment else _augment(auto_augment, self._resamples, mean)
        self._color_jitter = 0.0 if self._auto_augment else color_jitter
        self._normalize = Normalize(mean, std)
        self._erase = RandomErasing(erase_probability, erase_mode, erase_count) if erase_probability else None

    @property
    def keeps_levels(self) -> bool:
        """Whether normalising may wait until later: erasing writes what no level 0..255 is."""
        return self._erase is None

    def __call__(self, image: Image.Image, rng: np.random.Generator, out: np.ndarray | None = None) -> np.ndarray:
        pixels = self._normalize(self.augment(image, rng), out)
        if self._erase is not None:
            self._erase(pixels, rng)
        return pixels

    def augment(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Everything before normalisation, to look at the result."""
        image = self._crop(image, rng)
        if rng.random() < self._hflip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self._vflip and rng.random() < self._vflip:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if self._auto_augment is not None:
            return self._auto_augment(image, rng)
        if self._three_augment:
            image = three_augment(image, *draw_three_augment(rng))
        return jitter(image, draw_jitter(rng, self._color_jitter)) if self._color_jitter else image

    def _crop(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        resample = self._resamples[pick(rng, len(self._resamples))]
        if self._simple_crop:
            left, top = draw_padded_corner(rng, *image.size, self.image_size)
            return padded_crop(image, self.image_size, left, top, resample)
        box = draw_crop_box(rng, *image.size, self._scale, self._ratio)
        return resized_crop(image, box, self.image_size, resample)


def _augment(spec: str | None, resamples: tuple[Image.Resampling, ...], mean: Sequence[float]) -> AutoAugment | None:
    if spec is None or spec in ("", "none", "None"):
        return None
    return auto_augment(spec, resamples, tuple(min(255, round(255 * value)) for value in mean))
