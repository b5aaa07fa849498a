"""A plain class folder, without train/ and val/: which of its images are held out, decided once and kept in a file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mindeit.errors import UserError, shorten

SPLIT_FILE = "split.csv"
TRAIN, HELD_OUT = "train", "val"
_HEADING = ["file", "class", "part"]


@dataclass(frozen=True)
class Division:
    """How a plain class folder is divided: as ``file`` says, or by drawing ``share`` of each class (1: all of it is
    held out). ``needed``: a file that does not fit the folder is an error; otherwise the draw counts."""

    share: float = 0.2
    seed: int = 0
    file: str | None = None
    needed: bool = True

    def parts(self, names: Sequence[str], labels: np.ndarray, root: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """(0 to train, 1 held out, -1 neither) for each image below ``root``, and notes for the user."""
        if self.file is not None:
            written = read(self.file)
            gone = sorted(written.keys() - set(names))
            if not gone:
                return self._as_written(names, written)
            if self.needed:
                raise UserError(f"{self.file} names {gone[0]}, which is not in {root}{_and_more(len(gone))}")
        held_out = draw(labels, self.share, self.seed)
        whole = f"{root} is not divided into train and val, and no {SPLIT_FILE} tells: all its images are evaluated"
        return held_out.astype(np.int8), (whole,) if self.share == 1 else ()

    def _as_written(self, names: Sequence[str], written: dict[str, str]) -> tuple[np.ndarray, tuple[str, ...]]:
        number = {TRAIN: 0, HELD_OUT: 1, None: -1}
        parts = np.array([number[written.get(name)] for name in names], np.int8)
        new = int((parts < 0).sum())
        return parts, (f"{new} images are not in {self.file}; they are left out",) if new else ()


DRAWN = Division()


def draw(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which images are held out: ``share`` of each class, at least one of it, and at least one trains."""
    held_out, numbers = np.zeros(len(labels), bool), np.random.default_rng(seed)
    if share == 1:
        return ~held_out
    order = np.argsort(labels, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        held_out[numbers.permutation(rows)[:count]] = True
    return held_out


def read(path: str) -> dict[str, str]:
    """File -> part, from what `text` gave."""
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            return read_text(file.read(), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def read_text(table: str, where: str) -> dict[str, str]:
    try:
        rows = list(csv.reader(io.StringIO(table, newline="")))
    except csv.Error as error:
        raise UserError(f"{where}: not a table: {error}") from None
    if not rows or rows[0] != _HEADING:
        raise UserError(f"{where}: not the division of a folder; its first line has to be '{','.join(_HEADING)}'")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 3 or row[2] not in (TRAIN, HELD_OUT):
            allowed = f"allowed: file,class,{TRAIN} or file,class,{HELD_OUT}"
            raise UserError(f"{where}:{number}: '{shorten(','.join(row))}', {allowed}")
    return {name: part for name, _, part in rows[1:]}


def text(parts: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> str:
    """A table file, class, part of the names and classes of each part."""
    rows = sorted((name, label, part) for part, (names, labels) in parts.items() for name, label in zip(names, labels))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([_HEADING, *rows])
    return table.getvalue()


def beside(checkpoint: os.PathLike[str] | str | None) -> str | None:
    """The division that lies in the folder of a checkpoint, if one does."""
    path = os.path.join(os.path.dirname(checkpoint), SPLIT_FILE) if checkpoint is not None else ""
    return path if os.path.isfile(path) else None


def _and_more(count: int) -> str:
    return f", and {count - 1} more" if count > 1 else ""
