"""The figures of each epoch: a line of JSON, and the same for the trackers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mindeit.errors import UserError
from mindeit.files import PathLike, atomic, check_writable
from mindeit.training import trackers as kinds
from mindeit.training.trackers import Record


class History:
    """``history.jsonl`` in ``folder``, and what the ``trackers`` show of it; epochs count from 1.

    Existing records of the first ``epochs`` epochs are kept; later ones are dropped when the first record is added.
    Nothing is written before that, but what would make writing fail is reported at once.
    """

    def __init__(self, folder: PathLike, *, trackers: Sequence[str] = ("tensorboard",), epochs: int = 0) -> None:
        self._path, self._first = Path(folder) / "history.jsonl", epochs + 1
        self._records = {epoch: record for epoch, record in _read(self._path).items() if epoch <= epochs}
        check_writable(self._path)
        self._trackers = kinds.build(trackers, self._path.parent)
        self._opened = False

    @property
    def records(self) -> list[Record]:
        """One an epoch, in order."""
        return list(self._records.values())

    def begin(self, config: Mapping[str, Any]) -> None:
        """Before the first step: trackers that log in somewhere do it now. They show ``config`` beside the figures."""
        for tracker in self._trackers:
            tracker.begin(self._first, config)

    def add(self, record: Mapping[str, Any]) -> None:
        """``record["epoch"]`` names the epoch; the rest are figures. On the disk when this returns."""
        plain = {key: _plain(value) for key, value in record.items()}
        if not self._opened:
            self._open()
        try:
            with open(self._path, "ab") as file:
                file.write(_line(plain))  # one write: whole or, if the machine dies, cut at the file's end
                file.flush()
                os.fsync(file.fileno())
            for tracker in self._trackers:
                tracker.add(plain)
        except OSError as error:
            raise UserError(f"{self._path.parent}: cannot write the history: {error.strerror or error}") from None
        self._records[plain["epoch"]] = plain

    def _open(self) -> None:
        with atomic(self._path) as temporary:
            temporary.write_bytes(b"".join(map(_line, self._records.values())))
        self._opened = True

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


def _plain(value: Any) -> Any:
    """Numbers of NumPy, and tensors of one element, as Python numbers; None for NaN and infinity, unknown to JSON."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(record: Record) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _read(path: Path) -> dict[int, Record]:
    """The record of each epoch; the last one written counts."""
    if not path.exists() or path.is_dir():  # `check_writable` reports a folder
        return {}
    lines = path.read_bytes().split(b"\n")
    records = {}
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                record = _record(line)
                records[record["epoch"]] = record
        except (ValueError, KeyError, AttributeError, RecursionError):
            if number < len(lines):  # the last one was cut by a crash or a full disk
                hint = "mend it or move the file away"
                raise UserError(f"{path}: line {number} is not the record of an epoch; {hint}") from None
    counted_from_0 = 0 in records  # by earlier versions
    return {
        epoch + counted_from_0: {**record, "epoch": epoch + counted_from_0} for epoch, record in sorted(records.items())
    }


def _record(line: bytes) -> Record:
    record = {key: _plain(value) for key, value in json.loads(line).items()}
    wrong = [value for value in record.values() if not (value is None or isinstance(value, (int, float)))]
    if wrong or type(record["epoch"]) is not int:
        raise ValueError("not figures")
    return record
