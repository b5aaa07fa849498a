"""Evaluation preprocessing, equal to torchvision's Pillow pipeline to the last bit; training shares its parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from mindeit.data.resizing import resized_part, short_side_size
from mindeit.errors import UserError, nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def interpolation_filter(name: str) -> Image.Resampling:
    if name not in INTERPOLATIONS:
        raise UserError(
            f"interpolation is '{name}'; allowed: {', '.join(INTERPOLATIONS)}{nearest(name, INTERPOLATIONS)}"
        )
    return INTERPOLATIONS[name]


def middle(length: int, size: int) -> tuple[int, int]:
    """The middle ``size`` pixels of an axis, or all of a shorter one."""
    first = max(0, round((length - size) / 2))  # half to even, as the original rounds
    return first, min(length, first + size)


def on_black(image: Image.Image, size: int) -> Image.Image:
    """In the middle of (size, size), if it is smaller."""
    if image.size == (size, size):
        return image
    whole = Image.new(image.mode, (size, size))
    whole.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return whole


def channels(image: Image.Image) -> Iterator[np.ndarray]:
    """Red, green and blue, uint8 (H, W), read-only. Pillow's own `split` makes three more images for them."""
    for channel in image.getbands():
        yield np.frombuffer(image.tobytes("raw", channel), np.uint8).reshape(image.height, image.width)


class Normalize:
    """uint8 image -> float32 (3, H, W): (value / 255 - mean) / std, each step rounded to float32 as torch does.

    A uint8 ``out`` gets the values as they are, for `layers.normalised` to do the rest.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._mean, self._std = np.asarray(mean, np.float32), np.asarray(std, np.float32)

    def __call__(self, image: Image.Image, out: np.ndarray | None = None) -> np.ndarray:
        if out is None:
            out = np.empty((3, image.height, image.width), np.float32)
        # one channel at a time and in place: it stays in the cache, which makes this faster than a table of the levels
        for plane, channel, mean, std in zip(out, channels(image), self._mean, self._std):
            if out.dtype == np.uint8:
                plane[:] = channel
                continue
            np.divide(channel, np.float32(255), out=plane, dtype=np.float32)
            plane -= mean
            plane /= std
        return out


class EvalTransform:
    """RGB image -> float32 (3, S, S): short side to int(S / crop_pct), middle crop, normalise."""

    def __init__(
        self,
        image_size: int,
        crop_pct: float = 0.875,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        interpolation: str = "bicubic",
    ) -> None:
        if crop_pct <= 0:
            raise UserError(f"crop_pct is {crop_pct}; it must be above 0 (0.875 for DeiT, 1.0 for DeiT III)")
        self.image_size = image_size
        self._resize_to = int(image_size / crop_pct)
        self._resample = interpolation_filter(interpolation)
        self._normalize = Normalize(mean, std)

    def __call__(self, image: Image.Image, out: np.ndarray | None = None) -> np.ndarray:
        size = short_side_size(*image.size, self._resize_to)
        (left, right), (top, bottom) = (middle(length, self.image_size) for length in size)
        cropped = resized_part(image, size, self._resample, (left, top, right, bottom))
        return self._normalize(on_black(cropped, self.image_size), out)
