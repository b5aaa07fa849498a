"""What each epoch brought: one line of JSON an epoch, and the same as TensorBoard events."""
from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Union

from mindeit.errors import UserError
from mindeit.files import PathLike, atomic

Record = dict[str, Union[float, int, None]]


class History:
    """``history.jsonl`` and ``tensorboard/`` in ``folder``.

    resume_from: records of earlier epochs stay, those of this epoch and later go. None begins anew.
    """

    def __init__(self, folder: PathLike, *, tensorboard: bool = True, resume_from: int | None = None):
        self._path = Path(folder) / "history.jsonl"
        self._records = {} if resume_from is None else _read(self._path, before=resume_from)
        with atomic(self._path) as temporary:
            temporary.write_bytes(b"".join(map(_line, self._records.values())))
        self._events = _Events(Path(folder) / "tensorboard", resume_from) if tensorboard else None

    @property
    def records(self) -> list[Record]:
        """One an epoch, in order."""
        return list(self._records.values())

    def add(self, record: Mapping[str, Any]) -> None:
        """``record["epoch"]`` names the epoch; the rest are figures. On the disk when this returns."""
        plain = {key: _plain(value) for key, value in record.items()}
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

    def close(self) -> None:
        if self._events:
            self._events.close()


def _plain(value: Any) -> float | int | None:
    """NumPy's numbers and tensors of one become Python's; JSON has no word for NaN and infinity."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(record: Record) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _read(path: Path, before: int) -> dict[int, Record]:
    """The records of epochs before ``before``, each epoch once: what was written last."""
    if not path.exists():
        return {}
    lines = path.read_bytes().split(b"\n")
    records = {}
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                record = json.loads(line)
                records[int(record["epoch"])] = record
        except (ValueError, TypeError, KeyError):
            if number < len(lines):  # the last one was cut by a crash or a full disk
                hint = "mend it or move the file away"
                raise UserError(f"{path}: line {number} is not the record of an epoch; {hint}") from None
    return {epoch: record for epoch, record in sorted(records.items()) if epoch < before}


class _Events:
    """TensorBoard's file of events, one scalar a key, on the disk after each epoch.

    The step is the epoch. Steps from ``purge_step`` on that earlier files of the folder hold are taken back.
    """

    def __init__(self, folder: Path, purge_step: int | None):
        with _hidden("torch"):
            try:
                from tensorboardX.proto.event_pb2 import Event, SessionLog
                from tensorboardX.record_writer import RecordWriter
            except ImportError as error:
                raise UserError(f"TensorBoard events need tensorboardX (pip install tensorboardX): {error}") from None
        self._event = Event
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if purge_step is None:
                for old in folder.glob("events.out.tfevents.*"):
                    old.unlink()
            # the time in nanoseconds: TensorBoard reads files in the order of their names, and none may be overwritten
            self._file = RecordWriter(str(folder / f"events.out.tfevents.{time.time_ns()}"))
        except OSError as error:
            raise UserError(f"{folder}: cannot write there: {error.strerror or error}") from None
        self._write(file_version="brain.Event:2")
        if purge_step is not None:
            self._write(step=purge_step, session_log=SessionLog(status=SessionLog.START))
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
    sys.modules[module] = None
    try:
        yield
    finally:
        del sys.modules[module]
