"""Files that are read whole or refused in one line, and files that appear whole or not at all."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Union

from mindeit.errors import UserError, shorten

PathLike = Union[str, "os.PathLike[str]"]
_SCREEN = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}


def cache_folder() -> Path:
    """``MINDEIT_HOME``, else ``mindeit`` in the user's cache (``XDG_CACHE_HOME``, by default ``~/.cache``)."""
    own, caches = os.environ.get("MINDEIT_HOME"), os.environ.get("XDG_CACHE_HOME")
    return Path(own or os.path.join(caches or "~/.cache", "mindeit")).expanduser()


def existing_file(path: PathLike) -> Path:
    """``path``, if it is a file that can be read and holds something."""
    path, found = Path(path), _stat(path)
    if found is None:
        raise UserError(f"{path}: no such file")
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{path}: is a folder, a file is needed")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path}: is a device or a pipe, a file is needed")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read")
    if found.st_size == 0:
        raise UserError(f"{path}: is empty")
    return path


def _stat(path: PathLike) -> os.stat_result | None:
    """What ``path`` leads to, None: nothing. One line for a name that is too long, a loop of links and the like."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


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
    """A temporary name beside ``path`` that becomes ``path`` when the block ends well, and vanishes when it doesn't.

    Of a link the target is written. What is no regular file (a device, a pipe, ``-`` for the screen) stays what it is,
    and gets the content.
    """
    path = Path(path)
    temporary = _temporary_for(path)
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
        with tempfile.TemporaryDirectory(prefix=_prefix(path), dir=path.parent) as folder:
            yield Path(folder, path.name)
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):
                _publish(file, path.with_name(file.name))
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror or error}") from None


def _publish(temporary: Path, path: Path) -> None:
    if stays(path):
        sys.stdout.flush()  # what was printed comes first
        with temporary.open("rb") as content, _opened(path) as target:
            shutil.copyfileobj(content, target)
        return
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(temporary, 0o666 & ~mask)  # temporary files are the owner's alone
    try:
        os.replace(temporary, os.path.realpath(path))
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with atomic(path) as beside:  # the link of a group leads to another disk
            shutil.copyfile(temporary, beside)


def stays(path: PathLike) -> bool:
    """Whether ``path`` is nothing that a file may take the place of: the screen, a device, a pipe."""
    path = Path(path)
    found = _stat(path)
    return _handle(path) is not None or (found is not None and not stat.S_ISREG(found.st_mode))


def _handle(path: Path) -> int | None:
    """The open file that a name stands for: the screen, or what the shell made of ``>(...)``."""
    named = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d+)", str(path))
    return int(named[1]) if named else _SCREEN.get(str(path))


def _opened(path: Path) -> BinaryIO:
    handle = _handle(path)
    return path.open("wb") if handle is None else os.fdopen(os.dup(handle), "wb")


def check_writable(path: PathLike) -> None:
    """Fail early if ``path`` cannot be written."""
    path = Path(path)
    _temporary_for(path).unlink()
    if _handle(path) is None and stays(path) and not os.access(path, os.W_OK):
        raise UserError(f"{path}: no permission to write")


def check_name(path: PathLike) -> None:
    """Refuse what can be no file: a folder, a name that is too long."""
    found = _stat(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise UserError(f"{path}: is a folder, the name of a file is needed")


def read_json(path: PathLike) -> Any:
    try:
        with open_regular(path) as file:
            return json.load(file, parse_constant=_no_number)
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid json: {shorten(error, 200)}") from error


def _no_number(word: str) -> Any:
    """Python's reader would take NaN and Infinity; JSON has none."""
    raise ValueError(word)


def write_json(path: PathLike, value: Any) -> None:
    with atomic(path) as temporary:
        text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))  # a path may not be UTF-8: \\udcff is JSON


def write_csv(path: PathLike, rows: Iterable[Sequence[Any]]) -> None:
    with (
        atomic(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(rows)


def _temporary_for(path: Path) -> Path:
    """A new file, beside what ``path`` leads to where that can be replaced."""
    check_name(path)
    try:
        if stays(path):
            folder = None  # where temporary files go
        else:
            folder = os.path.dirname(os.path.realpath(path))
            os.makedirs(folder, exist_ok=True)
            _stat(path)  # in a folder that was not there before, a name may turn out too long
        handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=path.suffix, dir=folder)
    except OSError as error:
        raise UserError(f"{path}: cannot write there: {error.strerror}") from None
    os.close(handle)
    return Path(name)


def _prefix(path: Path) -> str:
    return f".{path.stem[:40]}-"  # leaves room for what makes it unique
