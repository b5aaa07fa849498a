"""Files that are read whole or refused in one line, and files that appear whole or not at all."""
from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Union

from mindeit.errors import UserError

PathLike = Union[str, "os.PathLike[str]"]


def existing_file(path: PathLike) -> Path:
    """``path``, if it is a file that can be read and holds something."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder, a file is needed")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty")
    return path


def open_regular(path: PathLike) -> BinaryIO:
    """``path`` for reading, at once: a pipe would wait for its writer, for good where there is none. Else OSError."""

    def opener(name: str, flags: int) -> int:
        handle = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
        kind = os.fstat(handle).st_mode
        if stat.S_ISREG(kind) or stat.S_ISDIR(kind):  # Python refuses folders by itself
            return handle
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file")

    return open(path, "rb", opener=opener)


@contextmanager
def atomic(path: PathLike) -> Iterator[Path]:
    """A temporary name beside ``path`` that becomes ``path`` when the block ends well, and vanishes when it doesn't."""
    path = Path(path)
    temporary = _temporary_beside(path)
    try:
        yield temporary
        _publish(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_group(path: PathLike) -> Iterator[Path]:
    """``path``'s name in a new folder beside it, for files that belong together and know each other by name.

    What lies in the folder when the block ends well moves out of it, ``path`` as the last; else all of it vanishes.
    """
    path = Path(path)
    check_writable(path)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
            yield Path(folder, path.name)
            for each in sorted(Path(folder).iterdir(), key=lambda each: each.name == path.name):
                _publish(each, path.with_name(each.name))
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror or error}") from None


def _publish(temporary: Path, path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(temporary, 0o666 & ~mask)  # temporary files are the owner's alone
    os.replace(temporary, path)


def check_writable(path: PathLike) -> None:
    """Say before any work that ``path`` cannot be written."""
    _temporary_beside(Path(path)).unlink()


def write_json(path: PathLike, value: Any) -> None:
    with atomic(path) as temporary:
        text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))  # a path may not be UTF-8: \\udcff is JSON


def _temporary_beside(path: Path) -> Path:
    if path.is_dir():
        raise UserError(f"{path}: is a folder, the name of a file is needed")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot write there: {error.strerror}") from None
    os.close(handle)
    return Path(name)
