"""The images that `Predictor` takes: paths, URLs, bytes, open files, Pillow images, arrays; folders and lists."""

from __future__ import annotations

import io
import os
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, BinaryIO, Union, cast

import numpy as np
from PIL import Image

from mindeit.data.folders import list_images
from mindeit.data.images import decode_rgb
from mindeit.errors import UserError

if TYPE_CHECKING:
    One = Union[str, os.PathLike, bytes, BinaryIO, Image.Image, np.ndarray]
    Images = Union[One, Sequence[One]]

ALLOWED = "a path, URL, bytes, binary file, Pillow image, uint8 array (height, width, 3), folder, or a list of these"
_URL = re.compile("https?://", re.IGNORECASE)
_TIMEOUT = 30  # seconds without a byte
_LARGEST = 1 << 28  # bytes of an image that is fetched
_LONGEST = 4096  # characters of a path


def listed(images: Images) -> tuple[list[One], bool]:
    """All images, with those in folders, and whether the caller gave several (a list or folder)."""
    if isinstance(images, (list, tuple)):
        return [image for given in images for image in _inside(given)], True
    image = cast("One", images)  # no other sequences are allowed
    path = _path(image)
    return _inside(image), path is not None and os.path.isdir(path)


def _inside(image: One) -> list[One]:
    path = _path(image)
    if path is None:
        return [image]
    if len(path) > _LONGEST or "\0" in str(path):
        raise UserError(f"image is a text of {len(path)} characters; allowed: {ALLOWED}")
    return list(list_images([path]))


def _path(image: One) -> str | None:
    """None for pixels, bytes, open files and URLs."""
    is_url = isinstance(image, str) and _URL.match(image)
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) and not is_url else None


def read(image: One) -> Image.Image:
    """The image as RGB."""
    if isinstance(image, Image.Image):
        return _loaded(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, str) and _URL.match(image):
        return decode_rgb(io.BytesIO(_fetch(image)), image)
    if isinstance(image, (str, os.PathLike)):
        return decode_rgb(os.fspath(image), os.fspath(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_rgb(io.BytesIO(image), f"of {len(image)} bytes")
    if isinstance(image, io.TextIOBase):
        raise UserError(f"image is a text file; open it with mode 'rb'; allowed: {ALLOWED}")
    if callable(getattr(image, "read", None)):  # anything that works like an open file
        return decode_rgb(io.BytesIO(_content(image)), str(getattr(image, "name", "of an open file")))
    raise UserError(f"image is of type {type(image).__name__}; allowed: {ALLOWED}")


def _content(file: BinaryIO) -> bytes:
    """From the start, as Pillow does, if the file can seek."""
    with suppress(AttributeError, OSError):
        file.seek(0)
    return file.read()


def _loaded(image: Image.Image) -> Image.Image:
    try:
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:  # Pillow reads the file of an image late
        raise UserError(f"cannot read image {getattr(image, 'filename', '')}: {' '.join(str(error).split())}") from None


def _from_array(image: np.ndarray) -> Image.Image:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(f"image is an array of {image.dtype} {image.shape}; allowed: uint8 (height, width, 3), RGB")
    return Image.fromarray(np.ascontiguousarray(image))


def _fetch(url: str) -> bytes:
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "mindeit"})  # some servers refuse Python's own
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            content = response.read(_LARGEST + 1)
    except urllib.error.HTTPError as error:
        raise UserError(f"cannot fetch {url}: HTTP {error.code} {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise UserError(f"cannot fetch {url}: {' '.join(reason.split())}") from None
    if len(content) > _LARGEST:
        raise UserError(f"cannot fetch {url}: it has more than {_LARGEST >> 20} MiB")
    return content
