"""The folder of a run: one process at a time works in it, and what no run wrote stays as it is."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TextIO

from mindeit.errors import UserError
from mindeit.files import PathLike, check_writable, existing_file
from mindeit.runtime import log
from mindeit.training import run_checkpoints

LOCK, CONFIG, CURVES, HISTORY = "run.lock", "config.yaml", "curves.png", "history.jsonl"
DATA, REPORT = "data.json", "report.html"
CONFIG_MARK = "# How this run was made"  # a file that begins so was written by a run


class RunFolder(AbstractContextManager):
    """Inside the block the folder is there and belongs to this process; the system frees it when the process dies.

    Only the rank that is ``owner`` writes. A folder that was made for the block and stayed empty is removed.
    """

    def __init__(self, path: PathLike, *, owner: bool = True) -> None:
        self.path, self._owner = Path(path), owner
        self._lock: TextIO | None = None
        self._made = False

    def __enter__(self) -> RunFolder:
        if self._owner:
            self._made = not self.path.exists()
            check_writable(self.path / run_checkpoints.LAST)
            self._take()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            with suppress(OSError):
                os.unlink(self.path / LOCK)  # while it is held: see _take
            self._lock.close()
        if self._made:
            with suppress(OSError):
                self.path.rmdir()  # only if empty

    def _take(self) -> None:
        """By a POSIX lock, which children do not inherit. Who gets it for a file that its holder has just removed,
        takes the file that is there now."""
        path = self.path / LOCK
        while True:
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (held until the block ends)
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise UserError(
                    f"{self.path}: {holder} works in this folder; wait for its end, or choose another --ckpt_save_dir"
                ) from None
            except OSError as error:  # a file system without locks
                log.say(f"warning: {path}: cannot be locked ({error.strerror})")
            with suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    break
            file.close()
        file.truncate(0)
        print(f"process {os.getpid()} on {socket.gethostname()}", file=file, flush=True)
        self._lock = file

    def checkpoint(self, resume: str | None) -> Path | None:
        """The checkpoint to resume from: ``resume`` is None, "auto" (the newest sound one in the folder) or a path.

        Files that the run would replace must be its own, written before it was stopped.
        """
        named = existing_file(resume) if resume is not None and resume != "auto" else None
        found = run_checkpoints.newest_sound(self.path) if resume == "auto" else None
        if named is not None and named.resolve().parent == self.path.resolve():
            found = named
        if self._owner:
            self._check_taken(found, resume)
        return found or named

    def _check_taken(self, found: Path | None, resume: str | None) -> None:
        config = self.path / CONFIG
        if config.exists() and not _written_by_a_run(config):
            raise UserError(
                f"{config}: no run wrote this file, and a run there would replace it; move it away, or "
                "choose another --ckpt_save_dir"
            )
        if found is not None:
            return
        checkpoints = sorted(
            run_checkpoints.named_in(self.path), key=lambda path: (path.name != run_checkpoints.LAST, path.name)
        )
        others = [
            path
            for path in (self.path / HISTORY, self.path / CURVES)
            if path.exists() and (path.is_dir() or path.stat().st_size)
        ]
        if not checkpoints + others:
            return
        if resume == "auto" and checkpoints:
            names = ", ".join(path.name for path in checkpoints)
            raise UserError(
                f"{self.path}: no sound checkpoint among {names}; move them away to begin anew, or choose "
                "another --ckpt_save_dir"
            )
        raise UserError(
            f"{self.path} holds a run already ({(checkpoints + others)[0].name}); --resume auto goes on "
            "with it, or choose another --ckpt_save_dir"
        )


def _written_by_a_run(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().startswith(CONFIG_MARK)
    except (OSError, UnicodeDecodeError):
        return False
