"""Where the figures of a run are shown while it trains: TensorBoard, Weights & Biases, SwanLab."""

from __future__ import annotations

import importlib
import os
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

from mindeit.errors import UserError
from mindeit.files import atomic, check_writable

Record = dict[str, Any]  # "epoch": int; all else: float, int or None
PROJECT = "mindeit"  # of wandb and swanlab, whose own variables choose another


class Tracker(ABC):
    """Gets each epoch's figures; the step is the epoch.

    Made before the run, to report at once what would make it fail; it writes nothing then.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, first: int, config: Mapping[str, Any]) -> None:  # noqa: B027  # not every tracker has to know
        """Before the first step; ``first`` is the epoch that is recorded next, above 1 in a resumed run."""

    @abstractmethod
    def add(self, record: Record) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


def build(names: Sequence[str], folder: Path) -> list[Tracker]:
    return [TRACKERS[name](folder) for name in dict.fromkeys(names)]


def _figures(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "epoch" and value is not None}


def _installed(tracker: str, module: str) -> Any:
    """The module of an optional package, which is loaded for those who asked for it alone."""
    package = module.partition(".")[0]
    try:
        loaded = importlib.import_module(module)
        if (
            hasattr(loaded, "__path__") and loaded.__file__ is None
        ):  # an offline run leaves a folder of this name, which passes for a package
            raise ImportError(f"there is only a folder {package}")
        return loaded
    except ImportError as error:
        raise UserError(f"tracker {tracker} needs {package} (pip install {package}): {error}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


class TensorBoard(Tracker):
    """Files of events in ``tensorboard/``, one scalar a key, on the disk after each epoch.

    TensorBoard drops steps from the first one recorded on that earlier files of the folder hold.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "tensorboard")
        with _hidden("torch"):
            events = _installed("tensorboard", "tensorboardX.proto.event_pb2")
            self._writer = _installed("tensorboard", "tensorboardX.record_writer").RecordWriter
        self._event, self._session = events.Event, events.SessionLog
        self._file: Any = None
        if self.folder.is_dir():
            check_writable(self.folder / "events")
        elif self.folder.exists():
            raise UserError(f"{self.folder}: cannot write there: File exists")

    def add(self, record: Record) -> None:
        if self._file is None:
            self._open(record["epoch"])
        scalars = [{"tag": key, "simple_value": value} for key, value in _figures(record).items()]
        self._write(step=record["epoch"], summary={"value": scalars})
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self, first: int) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
            earlier = any(self.folder.glob("events.out.tfevents.*"))
            # the time in nanoseconds: TensorBoard reads files in the order of their names, and none may be overwritten
            self._file = self._writer(str(self.folder / f"events.out.tfevents.{time.time_ns()}"))
        except OSError as error:
            raise UserError(f"{self.folder}: cannot write there: {error.strerror or error}") from None
        self._write(file_version="brain.Event:2")
        if earlier:
            self._write(step=first, session_log=self._session(status=self._session.START))
        self._file.flush()

    def _write(self, **fields: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **fields).SerializeToString())


class _Service(Tracker):
    """A package that keeps the figures of many runs together; its own variables say where, and whether offline.

    A resumed run goes on under the name that it had, which is kept in ``<package>/run_id``.
    """

    name: str

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._module, self._run = _installed(self.name, self.name), None  # type: tuple[Any, Any]
        check_writable(self._id_file)

    @abstractmethod
    def start(self, module: Any, run_id: str, config: dict[str, Any]) -> Any:
        """The package's run, with the methods ``log`` and ``finish``."""

    def begin(self, first: int, config: Mapping[str, Any]) -> None:
        known = first > 1 and self._id_file.exists()
        run_id = self._id_file.read_text().strip() if known else uuid.uuid4().hex[:12]
        with atomic(self._id_file) as temporary:
            temporary.write_text(run_id)
        try:
            self._run = self.start(self._module, run_id, dict(config))
        except Exception as error:  # each package has kinds of its own: no key, no network, no such project
            raise UserError(
                f"tracker {self.name} cannot begin: {type(error).__name__}: {_first_line(error)}"
            ) from error

    def add(self, record: Record) -> None:
        self._run.log(_figures(record), step=record["epoch"])

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()

    @property
    def _id_file(self) -> Path:
        return self.folder / self.name / "run_id"


class Wandb(_Service):
    name = "wandb"

    def start(self, module: Any, run_id: str, config: dict[str, Any]) -> Any:
        settings = module.Settings(console="off")  # log.txt holds what the screen shows
        return module.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self.folder.name,
            dir=str(self.folder),
            id=run_id,
            resume="allow",
            config=config,
            settings=settings,
        )


class SwanLab(_Service):
    name = "swanlab"

    def start(self, module: Any, run_id: str, config: dict[str, Any]) -> Any:
        return module.init(
            project=os.environ.get("SWANLAB_PROJECT", PROJECT),
            name=self.folder.name,
            log_dir=str(self.folder / self.name),
            id=run_id,
            resume="allow",
            config=config,
        )


TRACKERS: dict[str, Callable[[Path], Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "swanlab": SwanLab}


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
