"""MindRecord files as MindSpore's FileWriter makes them, read at random.

MindSpore's own reader runs through a file in order only. A data file is a json header and pages; the ``.db`` beside
it (SQLite) says where in the pages each row lies.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image

from mindeit.data.images import Source, check_labels, decode_rgb, numbered_classes, read_class_file, split_files
from mindeit.errors import UserError, shorten
from mindeit.files import open_regular

_IMAGE_COLUMNS = ("image", "data")
_LABEL_COLUMN = "label"


class _Shard(NamedTuple):
    path: str
    column: int  # which of the blob columns holds the image
    columns: int  # how many blob columns there are
    begins: np.ndarray
    ends: np.ndarray
    labels: np.ndarray


class MindRecordSource(Source):
    """``data_dir/<split>*.mindrecord*``: bytes column ``image`` or ``data``, integer column ``label``.

    Class names: ``data_dir/classes.txt``, one a line, or the label numbers.
    """

    def __init__(self, data_dir: str, split: str) -> None:
        self._shards = [_open_shard(path) for path in _find(data_dir, split)]
        labels = np.concatenate([shard.labels for shard in self._shards])
        self._firsts = np.cumsum([0] + [len(shard.labels) for shard in self._shards])
        names = read_class_file(data_dir)
        self.class_names, self.named = names or numbered_classes(labels), bool(names)
        self.labels = check_labels(labels, self.num_classes, data_dir, self.where)

    def read(self, index: int) -> Image.Image:
        shard, row = self._locate(index)
        begin, end = int(shard.begins[row]), int(shard.ends[row])
        try:
            with open(shard.path, "rb") as file:
                file.seek(begin)
                blob = _column(file.read(end - begin), shard.column, shard.columns)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {self.where(index)}: {error}") from error
        return decode_rgb(io.BytesIO(blob), self.where(index))

    def where(self, index: int) -> str:
        shard, row = self._locate(index)
        return f"{shard.path}, row {row}"

    def _names_as_bytes(self) -> tuple[bytes, ...]:
        return tuple(os.fsencode(os.path.basename(shard.path)) for shard in self._shards)

    def _locate(self, index: int) -> tuple[_Shard, int]:
        number = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return self._shards[number], int(index - self._firsts[number])


def _find(data_dir: str, split: str) -> list[str]:
    found = [path for path in split_files(data_dir, split, ".mindrecord*") if not path.endswith(".db")]
    if not found:
        raise UserError(f"no {split}*.mindrecord in {data_dir}")
    return found


def _open_shard(path: str) -> _Shard:
    blobs, page, start = _header(path)
    column = next((name for name in _IMAGE_COLUMNS if name in blobs), None)
    if column is None:
        raise UserError(
            f"{path} has no bytes column 'image' or 'data'; its bytes columns: {', '.join(blobs) or 'none'}"
        )
    rows, labels = _index(path)
    size = os.path.getsize(path)
    if (rows < 0).any() or (rows > size).any() or (rows[:, 0] > (size - start) // page).any():
        raise UserError(f"{path} and its .db do not belong together, or one is cut short")
    first = start + rows[:, 0] * page
    begins, ends = first + rows[:, 1], first + rows[:, 2]
    if ((ends < begins) | (ends > size)).any():
        raise UserError(f"{path} and its .db do not belong together, or one is cut short")
    if labels is None:
        labels = _read_labels(path, len(rows))
    return _Shard(path, blobs.index(column), len(blobs), begins, ends, labels)


def _header(path: str) -> tuple[list[str], int, int]:
    """(the bytes columns, the size of a page, where the first one begins)."""
    size = os.path.getsize(path)
    try:
        with open_regular(path) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError("no header")
            header = json.loads(file.read(length))
        blobs, page, start = header["schema"][0]["blob_fields"], header["page_size"], header["header_size"]
        if not isinstance(blobs, list) or not all(isinstance(name, str) for name in blobs):
            raise ValueError("blob_fields is no list of names")
        if not all(isinstance(number, int) and 0 < number < 2**40 for number in (page, start)):
            raise ValueError(f"page_size {page}, header_size {start}")
    except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError, struct.error) as error:
        raise UserError(f"{path} is not a MindRecord file: {shorten(error)}") from error
    return blobs, page, start


def _index(path: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(rows, 3) of page, begin and end in the page; labels (rows,), or None if the file was written without them."""
    if not os.path.isfile(path + ".db"):
        raise UserError(f"{path}.db is missing: a MindRecord file cannot be read without it")
    where = f"file:{path}.db?mode=ro".replace("#", "%23")
    try:
        with contextlib.closing(sqlite3.connect(where, uri=True)) as database:
            columns = [row[1] for row in database.execute("PRAGMA table_info(INDEXES)")]
            label = f", {_LABEL_COLUMN}_0" if f"{_LABEL_COLUMN}_0" in columns else ""
            rows = database.execute(
                "SELECT PAGE_ID_BLOB, PAGE_OFFSET_BLOB, PAGE_OFFSET_BLOB_END" + label + " FROM INDEXES ORDER BY ROW_ID"
            ).fetchall()
        table = np.array(rows, np.int64).reshape(len(rows), 4 if label else 3)
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}.db is damaged: {shorten(error)}") from error
    return table[:, :3], table[:, 3] if label else None


def _read_labels(path: str, rows: int) -> np.ndarray:
    """Labels that were not indexed when the file was written: one run through it."""
    from mindspore.mindrecord import FileReader  # other data sets do without MindSpore

    try:
        reader = FileReader([path], columns=[_LABEL_COLUMN])
        labels = np.array([int(row[_LABEL_COLUMN]) for row in reader.get_next()], np.int64)
        reader.close()
    except Exception as error:  # MindSpore's reader has a type of its own for each failure
        raise UserError(f"{path} has no integer column '{_LABEL_COLUMN}'") from error
    if len(labels) != rows:
        raise UserError(f"{path} has {len(labels)} labels for {rows} images")
    return labels


def _column(blob: bytes, column: int, columns: int) -> bytes:
    """A row's blob: its length (little endian); then, where there are several columns, each behind its own length
    (big endian)."""
    begin, length = 8, len(blob) - 8
    if columns > 1:
        for number in range(column + 1):
            begin += length if number else 0
            length = int.from_bytes(blob[begin : begin + 8], "big")
            begin += 8
            if begin + length > len(blob):
                raise ValueError(f"a column of {length} bytes in a row of {len(blob)}")
    return blob[begin : begin + length]
