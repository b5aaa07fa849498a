"""CIFAR-10 and CIFAR-100: the python pickles or the binary files, whichever is there."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
from PIL import Image

from mindeit.data.images import Source, check_labels
from mindeit.errors import UserError

_PIXELS = 3 * 32 * 32
_FOLDERS = {10: ("", "cifar-10-batches-py", "cifar-10-batches-bin"), 100: ("", "cifar-100-python", "cifar-100-binary")}
_FILES = {
    (10, True): tuple(f"data_batch_{i}" for i in range(1, 6)),
    (10, False): ("test_batch",),
    (100, True): ("train",),
    (100, False): ("test",),
}
# (file, key) of the pickled and file of the plain class names
_NAMES = {
    10: ("batches.meta", b"label_names", "batches.meta.txt"),
    100: ("meta", b"fine_label_names", "fine_label_names.txt"),
}
_LABEL_KEY = {10: b"labels", 100: b"fine_labels"}
_LABEL_BYTES = {10: 1, 100: 2}  # CIFAR-100 stores the coarse label first


class CifarSource(Source):
    """All images in memory: uint8 (n, 3, 32, 32)."""

    def __init__(self, data_dir: str, train: bool, classes: int) -> None:
        folder, suffix = _find(data_dir, train, classes)
        paths = [os.path.join(folder, name + suffix) for name in _FILES[classes, train]]
        parts = [_read_binary(path, classes) if suffix else _read_pickle(path, classes) for path in paths]
        self._pixels = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)
        names = _class_names(folder, classes)
        self.class_names, self.named = names or tuple(map(str, range(classes))), bool(names)
        self._name = f"cifar{classes} {'train' if train else 'val'} in {folder}"
        labels = np.concatenate([labels for _, labels in parts])
        self.labels = check_labels(labels, classes, self._name, lambda index: f"image {index}")

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self._pixels[index].transpose(1, 2, 0)))

    def where(self, index: int) -> str:
        return f"{self._name}, image {index}"


def _find(data_dir: str, train: bool, classes: int) -> tuple[str, str]:
    """(the folder that holds every file of this split, '' for pickles or '.bin')."""
    files = _FILES[classes, train]
    for below in _FOLDERS[classes]:
        folder = os.path.join(data_dir, below)
        for suffix in ("", ".bin"):
            if all(os.path.isfile(os.path.join(folder, name + suffix)) for name in files):
                return folder, suffix
    raise UserError(
        f"no CIFAR-{classes} in {data_dir}: expected {', '.join(files)} (or the same with .bin), there or "
        f"in {' or '.join(_FOLDERS[classes][1:])}"
    )


def _read_pickle(path: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    content = load_plain_pickle(path)
    key = _LABEL_KEY[classes]
    try:
        pixels, labels = np.asarray(content[b"data"], np.uint8), np.asarray(content[key], np.int64)
        good = pixels.shape == (len(labels), _PIXELS) and labels.ndim == 1
    except (KeyError, TypeError, ValueError):
        good = False
    if not good:
        raise UserError(
            f"{path} is not a CIFAR-{classes} batch: expected 'data' (n, {_PIXELS}) and '{key.decode()}' (n)"
        )
    return pixels, labels


def _read_binary(path: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    content, row = np.fromfile(path, np.uint8), _LABEL_BYTES[classes] + _PIXELS
    if not len(content) or len(content) % row:
        raise UserError(f"{path} has {len(content)} bytes; a CIFAR-{classes} file is a multiple of {row}")
    rows = content.reshape(-1, row)
    return rows[:, -_PIXELS:], rows[:, _LABEL_BYTES[classes] - 1].astype(np.int64)


def _class_names(folder: str, classes: int) -> tuple[str, ...]:
    """() if the files have none."""
    pickled, key, plain = _NAMES[classes]
    names: list[str] = []
    if os.path.isfile(os.path.join(folder, plain)):
        with open(os.path.join(folder, plain), encoding="utf-8", errors="replace") as file:
            names = file.read().split()
    elif os.path.isfile(os.path.join(folder, pickled)):
        content = load_plain_pickle(os.path.join(folder, pickled))
        found = content.get(key) if isinstance(content, dict) else None
        names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in found or ()]
    return tuple(names) if len(names) == classes else ()


def _latin1(text: str, encoding: str) -> bytes:
    """Stands in for `_codecs.encode`, with which Python 3 pickles bytes; other codecs decompress or import."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding}")
    return text.encode("latin1")


_RECONSTRUCT = np.empty(0).__reduce__()[0]  # what a pickle of an array calls first


class _PlainUnpickler(pickle.Unpickler):
    """Reads arrays and built-in containers only; any other name in the file is refused."""

    _ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self._ALLOWED[module, name]


def load_plain_pickle(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return _PlainUnpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is not a plain pickle of arrays: {reason[:200]}") from error
