"""The log of a script: lines on stderr, by the first rank only, and the same lines in a file."""

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

SECONDS_BETWEEN_SIGNS = 30  # that compiling goes on
# The innermost launcher first; `cluster.start` sets the first one itself.
_RANK_VARIABLES = ("MS_NODE_ID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


class _RunLog:
    """The lines so far, for a file that is opened later. ``begun``: a script runs, so `note` prints too."""

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


_run_log = _RunLog()


def begin(line: str) -> None:
    """A script starts: from now on `note` prints."""
    _run_log.begun, _run_log.lines = True, []
    say(line)


def say(line: str, *, screen: bool = True) -> None:
    """``screen`` False: in the file only."""
    if not _first_rank():
        return
    if screen:
        print(line, file=sys.stderr, flush=True)
    if _run_log.begun:
        _run_log.add(line)


def note(line: str) -> None:
    """A line for users of a script, but not for callers of the library."""
    if _run_log.begun:
        say(line)


@contextmanager
def kept_in(path: PathLike) -> Iterator[None]:
    """Append to ``path`` the lines so far, those logged inside the block, and the error that ends it, if any."""
    if not _first_rank():
        yield
        return
    try:
        _run_log.file = open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{path}: cannot write there: {error.strerror}") from None
    with _run_log.file:
        for line in (f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}", *_run_log.lines):
            _run_log.add(line)
        try:
            yield
        except UserError as error:
            _run_log.add(f"error: {error}")
            raise
        except BaseException:
            _run_log.add(traceback.format_exc().rstrip())
            raise
        finally:
            _run_log.begun, _run_log.file = False, None


@contextmanager
def compiling(what: str) -> Iterator[None]:
    """Log the start and end of compiling, and every 30 seconds that it is still running."""
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
