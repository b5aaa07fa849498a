"""The list of a million files, kept on disk and rebuilt when a folder has changed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import numpy as np

from mindeit.errors import UserError
from mindeit.files import atomic, cache_folder

_VERSION = "1"
_SETTLED_SECONDS = 2.0  # a younger folder may change again without a new time stamp
Arrays = dict[str, np.ndarray]
Stamps = list[tuple[bytes, int]]  # (path, modification time in ns) of everything the arrays were read from


def cached_arrays(key: Sequence[str], build: Callable[[], tuple[Arrays, Stamps]], cache_dir: str | None) -> Arrays:
    """What ``build`` returns, from the cache if every path that it read is unchanged.

    key: identifies the index. cache_dir: default `files.cache_folder`.
    """
    path = _cache_path(key, cache_dir)
    arrays = _load(path)
    if arrays is None:
        arrays, stamps = build()
        newest = max((stamp for _, stamp in stamps), default=0)
        if time.time_ns() - newest > _SETTLED_SECONDS * 1e9:
            _save(path, arrays, stamps)
    return arrays


def pack_names(names: Sequence[bytes]) -> Arrays:
    """One block of bytes and the end of each name in it; takes a tenth of the memory of a list."""
    return {
        "names": np.frombuffer(b"".join(names), np.uint8),
        "ends": np.cumsum([len(name) for name in names], dtype=np.int64),
    }


def scan_folders(root: str, folders: Sequence[str], wanted: Callable[[str], bool]) -> tuple[Arrays, Stamps]:
    """Files below ``root/folder`` for each folder, recursively, in torchvision's order.

    Returns (names below ``root`` as in `pack_names`, folder: position in ``folders`` (n,) int32), and the stamp of
    every folder visited: adding, removing or renaming a file changes one of them.
    """
    positions: list[int] = []
    names: list[bytes] = []
    stamps: Stamps = []
    for position, folder in enumerate(folders):
        levels = []
        for level, _, files in os.walk(os.path.join(root, folder), followlinks=True):
            stamps.append((os.fsencode(level), os.stat(level).st_mtime_ns))
            levels.append((level, files))
        for level, files in sorted(levels):
            below = os.path.relpath(level, root)
            chosen = [os.fsencode(f"{below}/{name}") for name in sorted(files) if wanted(name)]
            names += chosen
            positions += [position] * len(chosen)
    return {**pack_names(names), "folder": np.array(positions, np.int32)}, stamps


def _cache_path(key: Iterable[str], cache_dir: str | None) -> str:
    digest = hashlib.sha256(b"\0".join(os.fsencode(word) for word in (_VERSION, *key))).hexdigest()
    return os.path.join(cache_dir or cache_folder(), f"index-{digest[:24]}.npz")


def _load(path: str) -> Arrays | None:
    """The cached arrays, or None if there are none, the file is damaged, or anything has changed."""
    try:
        with np.load(path) as cache:
            seen = cache["_seen"].tobytes().split(b"\0")
            if any(os.stat(name).st_mtime_ns != stamp for name, stamp in zip(seen, cache["_stamps"].tolist())):
                return None
            return {name: cache[name] for name in cache.files if not name.startswith("_")}
    except Exception:  # whatever a damaged file raises, the index is built again
        return None


def _save(path: str, arrays: Arrays, stamps: Stamps) -> None:
    """Several ranks may save at once. If it cannot be written, the next run just builds it again."""
    seen = np.frombuffer(b"\0".join(name for name, _ in stamps), np.uint8)
    with suppress(UserError), atomic(path) as temporary:
        np.savez(temporary, _seen=seen, _stamps=np.array([stamp for _, stamp in stamps], np.int64), **arrays)
