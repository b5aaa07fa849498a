"""Decoding one image file to RGB, and the base class of all image sources."""

from __future__ import annotations

import ctypes
import glob
import hashlib
import logging
import os
import warnings
from typing import BinaryIO, Callable

import numpy as np
from PIL import Image, features

from mindeit.errors import UserError
from mindeit.files import open_regular

try:  # optional: without it Pillow decodes everything, more slowly
    import simplejpeg
except ImportError:
    simplejpeg = None

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
CLASS_FILE = "classes.txt"
_OTHER_NAMES = {"val": ("valid", "validation")}
_MOST_CLASSES = 1_000_000
# An allow list: Pillow would otherwise try every plug-in it has, Ghostscript for EPS included.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "PPM", "GIF")


# The same bits only where both use the same library, which Pillow's own wheels do.
_QUICK_JPEG = simplejpeg is not None and features.check_feature("libjpeg_turbo")
_JPEG_START = b"\xff\xd8\xff"


def _silence_decoders() -> None:
    """For a damaged file we print one line of our own; Pillow and libtiff would print theirs before it."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    library = ctypes.CDLL(Image.core.__file__)  # finds what it is linked to, libtiff too
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        getattr(library, name, lambda handler: None)(None)


_silence_decoders()


def is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def decode_rgb(file: str | BinaryIO, where: str) -> Image.Image:
    """The image as RGB, as torchvision's default loader sees it (EXIF orientation ignored).

    Anything that cannot be decoded is a `UserError` that names ``where``.
    """
    if not isinstance(file, str):
        image = _decode_jpeg(file) if _QUICK_JPEG else None
        return image or _decode(file, where)
    try:
        with open_regular(file) as opened:
            return decode_rgb(opened, where)
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        raise UserError(f"cannot read image {where}: {_reason(error)}") from error


def _decode_jpeg(file: BinaryIO) -> Image.Image | None:
    """The same bits as Pillow for an intact grey or colour JPEG. None for all others: Pillow decodes them or fails."""
    try:
        content = _jpeg_content(file)
        height, width, color, _ = simplejpeg.decode_jpeg_header(content)
        if color in ("YCbCr", "Gray", "RGB") and not _is_bomb(width, height):
            return Image.fromarray(simplejpeg.decode_jpeg(content))
    except (OSError, ValueError):  # strict: the smallest fault in a file is a ValueError
        pass
    return None


def _jpeg_content(file: BinaryIO) -> bytes:
    file.seek(0)
    start = file.read(len(_JPEG_START))
    return start + file.read() if start == _JPEG_START else b""


def _decode(file: BinaryIO, where: str) -> Image.Image:
    try:
        file.seek(0)
        with Image.open(file, formats=_FORMATS) as image:
            _refuse_bomb(image)
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:  # Pillow's plug-ins raise nearly anything on a damaged file
        reason = "the file is empty" if _is_empty(file) else _reason(error)
        raise UserError(f"cannot read image {where}: {reason}") from error


def _refuse_bomb(image: Image.Image) -> None:
    if _is_bomb(*image.size):
        raise Image.DecompressionBombError(
            f"{image.width}x{image.height} pixels are more than {Image.MAX_IMAGE_PIXELS} (decompression bomb?)"
        )


def _is_bomb(width: int, height: int) -> bool:
    return Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS


def _reason(error: Exception) -> str:
    """One line without the memory addresses Pillow puts into its messages."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image (JPEG, PNG, BMP, WebP, TIFF, PPM or GIF)"
    return " ".join(str(error).split()) or type(error).__name__


def _is_empty(file: BinaryIO) -> bool:
    file.seek(0)
    return not file.read(1)


class Source:
    """Labelled images in a fixed order.

    labels: int32 (n,); class_names: one per class, index = label. named: whether the data names its classes or only
    numbers them. notes: remarks for the user, a line each. answers: int32 (n, most), where an image has several right
    classes, by ascending number and the last one repeated; its label is the first.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    named = True
    notes: tuple[str, ...] = ()
    answers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def read(self, index: int) -> Image.Image:
        """Image ``index`` as RGB; `UserError` naming it if it cannot be decoded."""
        raise NotImplementedError

    def where(self, index: int) -> str:
        """Path or description of image ``index``, for messages."""
        raise NotImplementedError

    def digest(self) -> str:
        """A hash of labels, class names and image names, independent of the folder."""
        content = hashlib.sha256(self.labels.tobytes())
        for part in ("\0".join(self.class_names).encode(errors="surrogateescape"), *self._names_as_bytes()):
            content.update(part)
        return content.hexdigest()

    def _names_as_bytes(self) -> tuple[bytes, ...]:
        """The names of the images, if they have any."""
        return ()


def check_labels(labels: np.ndarray, num_classes: int, where: str, name_of: Callable[[int], str]) -> np.ndarray:
    """The labels as int32; a `UserError` names the first image whose label is outside 0..num_classes-1."""
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(bad):
        raise UserError(
            f"{where}: label {int(labels[bad[0]])} of {name_of(int(bad[0]))} is outside 0..{num_classes - 1}"
        )
    return labels.astype(np.int32, copy=False)


def read_class_file(data_dir: str) -> tuple[str, ...]:
    """The optional ``classes.txt`` of a folder: one class name a line, in label order. () without one."""
    path = os.path.join(data_dir, CLASS_FILE)
    if not os.path.isfile(path):
        return ()
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return tuple(line.strip() for line in file if line.strip())


def numbered_classes(labels: np.ndarray) -> tuple[str, ...]:
    """Names for classes that have none: 0 to the largest label."""
    largest = int(labels.max(initial=0))
    if largest >= _MOST_CLASSES:
        raise UserError(f"label {largest} is no class number: there may be at most {_MOST_CLASSES} classes")
    return tuple(map(str, range(largest + 1)))


def split_folder(data_dir: str, split: str) -> str:
    """The name of a split's folder: ``val`` may be called ``valid`` or ``validation``."""
    names = (split, *_OTHER_NAMES.get(split, ()))
    return next((name for name in names if os.path.isdir(os.path.join(data_dir, name))), split)


def split_files(data_dir: str, split: str, kind: str) -> list[str]:
    """``data_dir/<split>*<kind>`` and ``data_dir/<split>/*<kind>``, sorted."""
    patterns = (f"{split}*{kind}", f"{split_folder(data_dir, split)}/*{kind}")
    found = [path for pattern in patterns for path in glob.glob(os.path.join(glob.escape(data_dir), pattern))]
    for path in found:
        if not os.path.exists(path):
            raise UserError(f"{path} is a link to nothing")
    return sorted(found)
