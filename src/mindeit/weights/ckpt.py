"""MindSpore's ``.ckpt``: arrays and texts by name, and a checksum behind them."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Callable

import mindspore as ms
import numpy as np
from google.protobuf.message import DecodeError
from mindspore.train.checkpoint_pb2 import Checkpoint

from mindeit.errors import UserError

_MARK, _SUM_BYTES = b"crc_num", 10  # what MindSpore writes behind the values, and the bytes of the CRC32 after it
_BLOCK = 1 << 22
_TYPES = {
    name: np.dtype(name.lower())
    for name in (
        "Bool",
        "Int8",
        "UInt8",
        "Int16",
        "UInt16",
        "Int32",
        "UInt32",
        "Int64",
        "UInt64",
        "Float16",
        "Float32",
        "Float64",
    )
}


def read_entries(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray | str]:
    """The wanted entries. ``ms.load_checkpoint`` needs three times the file's size, and that much memory free even of
    the page cache; entry by entry, one copy of what is wanted does."""
    entries = {}
    with _refused_when_unreadable(path), path.open("rb") as file:
        for name, parts in groupby(_messages(file, _content_end(path)[0]), key=lambda message: message.tag):
            entries.update({name: _value([part.tensor for part in parts])} if wanted(name) else {})
    return entries


def read_first(path: Path) -> tuple[str, bytes]:
    """Name and content of the first entry, at the cost of a few bytes, not verified."""
    with _refused_when_unreadable(path), path.open("rb") as file:
        first = next(_messages(file, path.stat().st_size))
        return first.tag, first.tensor.tensor_content


def verify(path: Path) -> bool:
    """Read the whole file and compare the checksum at its end. False: it has none, as others may write it."""
    end, expected = _content_end(path)
    if expected is None:
        return False
    found = 0
    with _refused_when_unreadable(path), path.open("rb") as file:
        for start in range(0, end, _BLOCK):
            found = zlib.crc32(file.read(min(_BLOCK, end - start)), found)
    if found != expected:
        raise UserError(f"{path}: checksum does not match, the file is damaged")
    return True


def write(path: Path, state: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    arrays = {name: np.asarray(value, order="C") for name, value in state.items()}
    for name, array in arrays.items():
        if array.size == 0 or array.dtype not in _TYPES.values():
            raise ValueError(f"{name}: MindSpore's format cannot hold {array.dtype} of shape {array.shape}")
    rows = [{"name": name, "data": ms.Tensor.from_numpy(array)} for name, array in arrays.items()]
    with _quiet():
        try:
            ms.save_checkpoint(rows, str(path), append_dict=dict(texts) or None, crc_check=True)
        finally:
            path.with_suffix(".tmp").unlink(missing_ok=True)  # MindSpore's own, left when the disk is full


def write_with_texts(source: Path, path: Path, texts: Mapping[str, str]) -> None:
    """Write to ``path`` what a sound ``source`` holds, bit for bit but for these texts of it, and the new checksum."""
    checksum = 0
    with source.open("rb") as file, path.open("wb") as target:
        for message in _messages(file, _content_end(source)[0]):
            if message.tag in texts:
                message.tensor.tensor_content = np.array(texts[message.tag]).tobytes()
            value = Checkpoint(value=[message]).SerializeToString()
            checksum = zlib.crc32(value, checksum)
            target.write(value)
        target.write(_MARK + checksum.to_bytes(_SUM_BYTES, "big"))


def _messages(file: BinaryIO, end: int) -> Iterator[Any]:
    """MindSpore's file is one protobuf message, ``repeated Value value = 1``; each value is read by itself."""
    while file.tell() < end:
        if file.read(1) != b"\n":  # field 1, with a length
            raise ValueError("not a value")
        length = 0
        for shift in range(0, 64, 7):  # seven bits a byte; the eighth says that more follow
            byte = file.read(1)[0]
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        if length > end - file.tell():
            raise ValueError("truncated")
        yield Checkpoint.Value.FromString(file.read(length))


def _value(parts: list[Any]) -> np.ndarray | str:
    """An array or text from the slices it was written in."""
    content, kind, shape = b"".join(part.tensor_content for part in parts), parts[0].tensor_type, tuple(parts[0].dims)
    if kind == "str":
        return str(np.frombuffer(content, f"U{len(content) // 4}")[0])
    if kind == "BFloat16":  # NumPy has none: as float32, which holds each of its values
        return (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(content, _TYPES[kind]).reshape(shape).copy()


def _content_end(path: Path) -> tuple[int, int | None]:
    """(where the values end, the checksum written behind them or None)."""
    size = path.stat().st_size
    with _refused_when_unreadable(path), path.open("rb") as file:
        file.seek(max(0, size - len(_MARK) - _SUM_BYTES))
        mark, checksum = file.read(len(_MARK)), file.read()
    return (size - len(_MARK) - _SUM_BYTES, int.from_bytes(checksum, "big")) if mark == _MARK else (size, None)


@contextmanager
def _refused_when_unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError, StopIteration, OSError, DecodeError):
        raise UserError(f"{path}: not a MindSpore checkpoint, or truncated") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """MindSpore logs a page before it raises; our one line says it."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
