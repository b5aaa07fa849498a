"""Evaluation preprocessing, equal to torchvision's Pillow pipeline to the last bit; training shares its parts."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from mindeit.errors import UserError, nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR,
                  "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


def interpolation_filter(name: str) -> Image.Resampling:
    if name not in INTERPOLATIONS:
        raise UserError(f"interpolation is '{name}'; allowed: {', '.join(INTERPOLATIONS)}"
                        f"{nearest(name, INTERPOLATIONS)}")
    return INTERPOLATIONS[name]


def resize_short_side(image: Image.Image, size: int, resample: int = Image.Resampling.BICUBIC) -> Image.Image:
    """The shorter side becomes ``size``; the longer one is truncated to whole pixels."""
    short, long = sorted(image.size)
    new_long = int(size * long / short)
    new_size = (size, new_long) if image.width <= image.height else (new_long, size)
    return image if new_size == image.size else image.resize(new_size, resample)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle (size, size), with a black border where the picture is smaller."""
    width, height = image.size
    if width < size or height < size:
        padded = Image.new(image.mode, (max(width, size), max(height, size)))
        padded.paste(image, (max(size - width, 0) // 2, max(size - height, 0) // 2))
        image, (width, height) = padded, padded.size
    left, top = round((width - size) / 2), round((height - size) / 2)  # half to even, as the original rounds
    return image.crop((left, top, left + size, top + size))


def channels(image: Image.Image) -> Iterator[np.ndarray]:
    """Red, green and blue, uint8 (H, W), read-only. Pillow's own `split` makes three more pictures for them."""
    for channel in image.getbands():
        yield np.frombuffer(image.tobytes("raw", channel), np.uint8).reshape(image.height, image.width)


class Normalize:
    """uint8 picture -> float32 (3, H, W): (value / 255 - mean) / std, each step rounded to float32 as torch does."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self._mean, self._std = np.asarray(mean, np.float32), np.asarray(std, np.float32)

    def __call__(self, image: Image.Image, out: np.ndarray | None = None) -> np.ndarray:
        if out is None:
            out = np.empty((3, image.height, image.width), np.float32)
        # one channel at a time and in place: it stays in the cache, which makes this faster than a table of the levels
        for plane, channel, mean, std in zip(out, channels(image), self._mean, self._std):
            np.divide(channel, np.float32(255), out=plane, dtype=np.float32)
            plane -= mean
            plane /= std
        return out


class EvalTransform:
    """RGB picture -> float32 (3, S, S): short side to int(S / crop_pct), middle crop, normalise."""

    def __init__(self, image_size: int, crop_pct: float = 0.875, mean: Sequence[float] = IMAGENET_MEAN,
                 std: Sequence[float] = IMAGENET_STD, interpolation: str = "bicubic"):
        if crop_pct <= 0:
            raise UserError(f"crop_pct is {crop_pct}; it must be above 0 (0.875 for DeiT, 1.0 for DeiT III)")
        self.image_size = image_size
        self._resize_to = int(image_size / crop_pct)
        self._resample = interpolation_filter(interpolation)
        self._normalize = Normalize(mean, std)

    def __call__(self, image: Image.Image, out: np.ndarray | None = None) -> np.ndarray:
        resized = resize_short_side(image, self._resize_to, self._resample)
        return self._normalize(center_crop(resized, self.image_size), out)
