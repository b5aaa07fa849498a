"""One picture file to RGB pixels, and what every source of pictures offers."""
from __future__ import annotations

import os
from typing import BinaryIO, Callable, Union

import numpy as np
from PIL import Image

from mindeit.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
CLASS_FILE = "classes.txt"
_MOST_CLASSES = 1_000_000
# An allow list: Pillow would otherwise try every plug-in it has, Ghostscript for EPS included.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "PPM", "GIF")


def is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def decode_rgb(file: Union[str, BinaryIO], where: str) -> Image.Image:
    """The picture as RGB, as torchvision's default loader sees it (EXIF orientation ignored).

    Anything that cannot be decoded is a `UserError` that names ``where``.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            _refuse_bomb(image)
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:  # Pillow's plug-ins raise nearly anything on a damaged file
        raise UserError(f"cannot read image {where}: {_reason(file, error)}") from error


def _refuse_bomb(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels are more than {limit} "
                                           "(decompression bomb?)")


def _reason(file: Union[str, BinaryIO], error: Exception) -> str:
    """One line without the memory addresses Pillow puts into its messages."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.UnidentifiedImageError):
        return "the file is empty" if _is_empty(file) else "not a picture (JPEG, PNG, BMP, WebP, TIFF, PPM or GIF)"
    return " ".join(str(error).split()) or type(error).__name__


def _is_empty(file: Union[str, BinaryIO]) -> bool:
    if isinstance(file, str):
        with open(file, "rb") as opened:
            return not opened.read(1)
    file.seek(0)
    return not file.read(1)


class Source:
    """Labelled pictures in a fixed order.

    labels: int32 (n,); class_names: one per class, index = label.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def read(self, index: int) -> Image.Image:
        """Picture ``index`` as RGB; `UserError` naming it if it cannot be decoded."""
        raise NotImplementedError

    def where(self, index: int) -> str:
        """Path or description of picture ``index``, for messages."""
        raise NotImplementedError


def check_labels(labels: np.ndarray, num_classes: int, where: str, name_of: Callable[[int], str]) -> None:
    """Every label lies in 0..num_classes-1, or one line says which picture's does not."""
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(bad):
        raise UserError(f"{where}: label {int(labels[bad[0]])} of {name_of(int(bad[0]))} is outside "
                        f"0..{num_classes - 1}")


def read_class_file(data_dir: str) -> tuple[str, ...]:
    """The optional ``classes.txt`` of a folder: one class name a line, in label order. () without one."""
    path = os.path.join(data_dir, CLASS_FILE)
    if not os.path.isfile(path):
        return ()
    with open(path, encoding="utf-8", errors="replace") as file:
        return tuple(line.strip() for line in file if line.strip())


def numbered_classes(labels: np.ndarray) -> tuple[str, ...]:
    """Names for classes that have none: 0 to the largest label."""
    largest = int(labels.max(initial=0))
    if largest >= _MOST_CLASSES:
        raise UserError(f"label {largest} is no class number: there may be at most {_MOST_CLASSES} classes")
    return tuple(map(str, range(largest + 1)))


def class_names(data_dir: str, labels: np.ndarray) -> tuple[str, ...]:
    return read_class_file(data_dir) or numbered_classes(labels)
