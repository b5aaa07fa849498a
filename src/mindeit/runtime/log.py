"""What a script tells while it works: lines on stderr, by the first rank alone, and the same lines in a file."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from mindeit.errors import UserError
from mindeit.files import PathLike

SECONDS_BETWEEN_SIGNS = 30  # of life
# The innermost launcher first; `cluster.start` sets the first one itself.
_RANK_VARIABLES = ("MS_NODE_ID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


class _RunLog:
    """The lines so far, for a file that is opened later. ``begun``: a script tells what happens inside."""

    def __init__(self) -> None:
        self.begun = False
        self.lines: list[str] = []
        self.file: TextIO | None = None

    def add(self, line: str) -> None:
        if self.file is None:
            self.lines.append(line)
            return
        with suppress(OSError):  # a full disk ends a run where it loses something: at the next checkpoint
            print(line, file=self.file, flush=True)


_told = _RunLog()


def begin(line: str) -> None:
    """A script starts: from now on `note` is heard."""
    _told.begun, _told.lines = True, []
    say(line)


def say(line: str, *, screen: bool = True) -> None:
    """``screen`` False: in the file alone."""
    if not _first_rank():
        return
    if screen:
        print(line, file=sys.stderr, flush=True)
    if _told.begun:
        _told.add(line)


def note(line: str) -> None:
    """What those who call functions need not hear, but those who run a script do."""
    if _told.begun:
        say(line)


@contextmanager
def kept_in(path: PathLike) -> Iterator[None]:
    """Inside the block lines go to the end of ``path`` too, those before it first; so does what ends the block."""
    if not _first_rank():
        yield
        return
    try:
        _told.file = open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{path}: cannot write there: {error.strerror}") from None
    with _told.file:
        for line in (f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}", *_told.lines):
            _told.add(line)
        try:
            yield
        except UserError as error:
            _told.add(f"error: {error}")
            raise
        except BaseException:
            _told.add(traceback.format_exc().rstrip())
            raise
        finally:
            _told.begun, _told.file = False, None


@contextmanager
def compiling(what: str) -> Iterator[None]:
    """Say when it starts and ends, and in between that it still lasts."""
    started, over = time.monotonic(), threading.Event()

    def wait() -> None:
        while not over.wait(SECONDS_BETWEEN_SIGNS):
            note(f"still compiling {what}, for {time.monotonic() - started:.0f} s")

    note(f"compiling {what}")
    threading.Thread(target=wait, daemon=True).start()
    try:
        yield
    finally:
        over.set()
    note(f"compiled {what} in {time.monotonic() - started:.1f} s")


def _first_rank() -> bool:
    return next((os.environ[name] for name in _RANK_VARIABLES if os.environ.get(name)), "0") == "0"


def span(seconds: float) -> str:
    """``95`` -> ``1 min 35 s``: the two largest units."""
    parts: list[str] = []
    rest = round(seconds)
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or (name == "s" and not parts):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])
