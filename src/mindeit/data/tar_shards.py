"""Tar shards in webdataset's layout: ``key.jpg`` and ``key.cls`` side by side."""

from __future__ import annotations

import io
import os
import tarfile

import numpy as np
from PIL import Image

from mindeit.data.images import (
    Source,
    check_labels,
    decode_rgb,
    is_image,
    numbered_classes,
    read_class_file,
    split_files,
)
from mindeit.data.index_cache import Arrays, Stamps, cached_arrays, pack_names
from mindeit.errors import UserError
from mindeit.files import open_regular


class TarSource(Source):
    """``data_dir/<split>*.tar`` or ``data_dir/<split>/*.tar``. Class names: ``data_dir/classes.txt`` or the numbers."""

    def __init__(self, data_dir: str, split: str, cache_dir: str | None = None) -> None:
        self._shards = _find(data_dir, split)
        paths = [os.path.abspath(path) for path in self._shards]
        index = cached_arrays(("tar", *paths), lambda: _scan(paths), cache_dir)
        self.labels, self._shard = index["label"], index["shard"]
        self._begins, self._sizes = index["begin"], index["size"]
        self._names, self._ends = index["names"], index["ends"]
        names = read_class_file(data_dir)
        self.class_names, self.named = names or numbered_classes(self.labels), bool(names)
        check_labels(self.labels, self.num_classes, data_dir, self.where)

    def read(self, index: int) -> Image.Image:
        try:
            with open(self._shards[self._shard[index]], "rb") as file:
                file.seek(int(self._begins[index]))
                content = file.read(int(self._sizes[index]))
        except OSError as error:
            raise UserError(f"cannot read {self.where(index)}: {error.strerror}") from error
        return decode_rgb(io.BytesIO(content), self.where(index))

    def where(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        name = os.fsdecode(self._names[start : self._ends[index]].tobytes())
        return f"{self._shards[self._shard[index]]}: {name}"

    def _names_as_bytes(self) -> tuple[bytes, ...]:
        shards = (os.fsencode(os.path.basename(path)) for path in self._shards)
        return self._names.tobytes(), self._ends.tobytes(), self._shard.tobytes(), *shards


def _find(data_dir: str, split: str) -> list[str]:
    found = split_files(data_dir, split, ".tar")
    if not found:
        raise UserError(f"no {split}*.tar in {data_dir}")
    return found


def _scan(paths: list[str]) -> tuple[Arrays, Stamps]:
    rows: list[tuple[int, int, int, int]] = []
    names: list[bytes] = []
    stamps: Stamps = []
    for number, path in enumerate(paths):
        stamps.append((os.fsencode(path), os.stat(path).st_mtime_ns))
        for name, begin, size, label in _members(path):
            rows.append((number, begin, size, label))
            names.append(os.fsencode(name))
    table = np.array(rows, np.int64).reshape(-1, 4)
    return {
        **pack_names(names),
        "shard": table[:, 0].astype(np.int32),
        "begin": table[:, 1],
        "size": table[:, 2],
        "label": table[:, 3].astype(np.int32),
    }, stamps


def _members(path: str) -> list[tuple[str, int, int, int]]:
    """(name, offset, size, label) of every image of a shard, in its order."""
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                key, extension = _split_key(member.name)
                if is_image("x." + extension):
                    images[key] = (member.name, member.offset_data, member.size)
                elif extension == "cls":
                    labels[key] = _label(tar, member, path)
                tar.members = []  # type: ignore[attr-defined]  # private: tarfile would keep every header
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a whole tar file: {error}") from error
    unlabelled = [row[0] for key, row in images.items() if key not in labels]
    if unlabelled:
        raise UserError(f"{path}: image {unlabelled[0]} has no .cls beside it")
    return [(*row, labels[key]) for key, row in images.items()]


def _split_key(name: str) -> tuple[str, str]:
    """``a/b.seg.jpg`` -> (``a/b``, ``seg.jpg``): everything behind the first dot of the last part is the extension."""
    folder, base = os.path.split(name)
    key, _, extension = base.partition(".")
    return os.path.join(folder, key), extension.lower()


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> int:
    file = tar.extractfile(member) if member.isfile() else None
    text = file.read(64) if file is not None else b""
    try:
        label = int(text)
    except ValueError:
        raise UserError(f"{path}: {member.name} holds {text[:20]!r} instead of a label number") from None
    if not 0 <= label < 2**31:
        raise UserError(f"{path}: label {label} of {member.name} is outside 0..{2**31 - 1}")
    return label
