"""The figures of each epoch: a line of JSON, and the same as TensorBoard events."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mindeit.errors import UserError
from mindeit.files import PathLike, atomic, check_writable

Record = dict[str, Any]  # "epoch": int; all else: float, int or None


class History:
    """``history.jsonl`` and ``tensorboard/`` in ``folder``; epochs count from 1.

    Existing records of the first ``epochs`` epochs are kept; later ones are dropped when the first record is added.
    Nothing is written before that, but what would make writing fail is reported at once.
    """

    def __init__(self, folder: PathLike, *, tensorboard: bool = True, epochs: int = 0) -> None:
        self._path, self._tensorboard = Path(folder) / "history.jsonl", tensorboard
        self._records = {epoch: record for epoch, record in _read(self._path).items() if epoch <= epochs}
        check_writable(self._path)
        if tensorboard:
            _check_events(self._path.parent / "tensorboard")
        self._events: _Events | None = None
        self._opened = False

    @property
    def records(self) -> list[Record]:
        """One an epoch, in order."""
        return list(self._records.values())

    def add(self, record: Mapping[str, Any]) -> None:
        """``record["epoch"]`` names the epoch; the rest are figures. On the disk when this returns."""
        plain = {key: _plain(value) for key, value in record.items()}
        if not self._opened:
            self._open(plain["epoch"])
        try:
            with open(self._path, "ab") as file:
                file.write(_line(plain))  # one write: whole or, if the machine dies, cut at the file's end
                file.flush()
                os.fsync(file.fileno())
            if self._events:
                self._events.add(plain)
        except OSError as error:
            raise UserError(f"{self._path.parent}: cannot write the history: {error.strerror or error}") from None
        self._records[plain["epoch"]] = plain

    def _open(self, epoch: int) -> None:
        with atomic(self._path) as temporary:
            temporary.write_bytes(b"".join(map(_line, self._records.values())))
        self._events = _Events(self._path.parent / "tensorboard", epoch) if self._tensorboard else None
        self._opened = True

    def close(self) -> None:
        if self._events:
            self._events.close()


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


def _check_events(folder: Path) -> None:
    _tensorboard_writer()
    if folder.is_dir():
        check_writable(folder / "events")
    elif folder.exists():
        raise UserError(f"{folder}: cannot write there: File exists")


def _tensorboard_writer() -> tuple[Any, Any, Any]:
    """What writes events, and the two kinds of messages that are needed."""
    with _hidden("torch"):
        try:
            from tensorboardX.proto.event_pb2 import Event, SessionLog  # optional
            from tensorboardX.record_writer import RecordWriter  # optional
        except ImportError as error:
            raise UserError(f"TensorBoard events need tensorboardX (pip install tensorboardX): {error}") from None
    return RecordWriter, Event, SessionLog


class _Events:
    """TensorBoard's file of events, one scalar a key, on the disk after each epoch.

    The step is the epoch. TensorBoard drops steps from ``first`` on that earlier files of the folder hold.
    """

    def __init__(self, folder: Path, first: int) -> None:
        writer, self._event, session = _tensorboard_writer()
        try:
            folder.mkdir(exist_ok=True)
            earlier = any(folder.glob("events.out.tfevents.*"))
            # the time in nanoseconds: TensorBoard reads files in the order of their names, and none may be overwritten
            self._file = writer(str(folder / f"events.out.tfevents.{time.time_ns()}"))
        except OSError as error:
            raise UserError(f"{folder}: cannot write there: {error.strerror or error}") from None
        self._write(file_version="brain.Event:2")
        if earlier:
            self._write(step=first, session_log=session(status=session.START))
        self._file.flush()

    def add(self, record: Record) -> None:
        figures = ((key, value) for key, value in record.items() if key != "epoch" and value is not None)
        scalars = [{"tag": key, "simple_value": value} for key, value in figures]
        self._write(step=record["epoch"], summary={"value": scalars})
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, **fields: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **fields).SerializeToString())


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Inside the block ``import module`` fails, if nobody has imported it yet.

    tensorboardX imports torch where it finds it, which costs seconds and 190 MB and serves nothing here.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # so Python documents how to make an import fail
    try:
        yield
    finally:
        del sys.modules[module]
