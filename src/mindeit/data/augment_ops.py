"""Every image operation of RandAugment and AutoAugment, and the strength each takes at a magnitude of 0..10.

The numbers are those of timm 0.3.2 (`timm/data/auto_augment.py`), which DeiT trained with. Nothing here draws random
numbers: the sign and the magnitude are arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageEnhance, ImageOps

from mindeit.data.fast_shear import shear_columns, shear_rows
from mindeit.data.transforms import IMAGENET_MEAN

MAX_MAGNITUDE = 10.0
_SOLARIZE_ADD_BELOW = 128
_MEAN_COLOUR = tuple(round(255 * value) for value in IMAGENET_MEAN)


class WarpStyle(NamedTuple):
    """For operations that move pixels: the resampling filter, and the colour of uncovered pixels."""

    resample: Image.Resampling = Image.Resampling.BICUBIC
    fill: tuple[int, ...] = _MEAN_COLOUR


DEFAULT_STYLE = WarpStyle()


class Op(NamedTuple):
    """``apply(image, style, *args)`` with ``args = strength(magnitude / 10, sign)``; unsigned ones ignore the sign."""

    apply: Callable[..., Image.Image]
    strength: Callable[[float, int], tuple]


def _along_x(image: Image.Image, style: WarpStyle, factor: float, shift: float) -> Image.Image:
    quick = shear_rows(image, factor, shift, style.fill) if _is_bicubic_rgb(image, style) else None
    return quick or _affine(image, style, (1, factor, shift, 0, 1, 0))


def _along_y(image: Image.Image, style: WarpStyle, factor: float, shift: float) -> Image.Image:
    quick = shear_columns(image, factor, shift, style.fill) if _is_bicubic_rgb(image, style) else None
    return quick or _affine(image, style, (1, 0, 0, factor, 1, shift))


def _is_bicubic_rgb(image: Image.Image, style: WarpStyle) -> bool:
    return image.mode == "RGB" and style.resample == Image.Resampling.BICUBIC


def _affine(image: Image.Image, style: WarpStyle, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=style.resample, fillcolor=style.fill)


def _rotate(image: Image.Image, style: WarpStyle, degrees: float) -> Image.Image:
    return image.rotate(degrees, resample=style.resample, fillcolor=style.fill)


def _posterize(image: Image.Image, style: WarpStyle, bits: int) -> Image.Image:
    """Keep the highest ``bits``; 0 is black, which Pillow refuses to do by itself."""
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


def _solarize_add(image: Image.Image, style: WarpStyle, add: int) -> Image.Image:
    table = [min(255, value + add) if value < _SOLARIZE_ADD_BELOW else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def _enhance(kind: type) -> Callable[..., Image.Image]:
    return lambda image, style, factor: kind(image).enhance(factor)


def _none(level: float, sign: int) -> tuple:
    return ()


def _signed(limit: float) -> Callable[[float, int], tuple]:
    return lambda level, sign: (sign * (level * limit),)


def _factor(level: float, sign: int) -> tuple:
    return (level * 1.8 + 0.1,)


def _factor_increasing(level: float, sign: int) -> tuple:
    return (1.0 + sign * (level * 0.9),)


def _solarize(image: Image.Image, style: WarpStyle, threshold: int) -> Image.Image:
    return ImageOps.solarize(image, threshold)


OPS: dict[str, Op] = {
    "AutoContrast": Op(lambda image, style: ImageOps.autocontrast(image), _none),
    "Equalize": Op(lambda image, style: ImageOps.equalize(image), _none),
    "Invert": Op(lambda image, style: ImageOps.invert(image), _none),
    "Rotate": Op(_rotate, _signed(30.0)),
    "Posterize": Op(_posterize, lambda level, sign: (int(level * 4),)),
    "PosterizeIncreasing": Op(_posterize, lambda level, sign: (4 - int(level * 4),)),
    "PosterizeOriginal": Op(_posterize, lambda level, sign: (int(level * 4) + 4,)),
    "Solarize": Op(_solarize, lambda level, sign: (int(level * 256),)),
    "SolarizeIncreasing": Op(_solarize, lambda level, sign: (256 - int(level * 256),)),
    "SolarizeAdd": Op(_solarize_add, lambda level, sign: (int(level * 110),)),
    "Color": Op(_enhance(ImageEnhance.Color), _factor),
    "ColorIncreasing": Op(_enhance(ImageEnhance.Color), _factor_increasing),
    "Contrast": Op(_enhance(ImageEnhance.Contrast), _factor),
    "ContrastIncreasing": Op(_enhance(ImageEnhance.Contrast), _factor_increasing),
    "Brightness": Op(_enhance(ImageEnhance.Brightness), _factor),
    "BrightnessIncreasing": Op(_enhance(ImageEnhance.Brightness), _factor_increasing),
    "Sharpness": Op(_enhance(ImageEnhance.Sharpness), _factor),
    "SharpnessIncreasing": Op(_enhance(ImageEnhance.Sharpness), _factor_increasing),
    "ShearX": Op(lambda image, style, factor: _along_x(image, style, factor, 0.0), _signed(0.3)),
    "ShearY": Op(lambda image, style, factor: _along_y(image, style, factor, 0.0), _signed(0.3)),
    "TranslateXRel": Op(lambda image, style, share: _along_x(image, style, 0.0, share * image.width), _signed(0.45)),
    "TranslateYRel": Op(lambda image, style, share: _along_y(image, style, 0.0, share * image.height), _signed(0.45)),
}


def strength(name: str, magnitude: float, sign: int = 1) -> tuple:
    """The arguments of an operation at ``magnitude`` (0..10; beyond is clipped)."""
    clipped = min(MAX_MAGNITUDE, max(0.0, magnitude))
    return OPS[name].strength(clipped / MAX_MAGNITUDE, sign)


def apply_op(name: str, args: tuple, image: Image.Image, style: WarpStyle = DEFAULT_STYLE) -> Image.Image:
    return OPS[name].apply(image, style, *args)
