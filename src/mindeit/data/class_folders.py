"""The parts of a folder, whichever way it is laid out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

import numpy as np

from mindeit.data.folders import FileSource, list_images, open_folder, subfolders
from mindeit.data.images import Source, is_image, split_folder
from mindeit.data.index_cache import pack_names
from mindeit.errors import UserError

PARTS = ("train", "val", "test")
WHOLE = "all"  # the part of a folder that has none
_EXPECTED = "a folder for each class, or train/ and val/ (and test/) with these"


def open_parts(folder: str) -> dict[str, Source]:
    """``folder/<part>/<class>/...``, ``folder/<class>/...``, or a flat folder with a label file."""
    if not os.path.isdir(folder):
        found = "is a file" if os.path.exists(folder) else "does not exist"
        raise UserError(f"{folder} {found}; expected {_EXPECTED}")
    parts = [part for part in PARTS if _holds_folders(os.path.join(folder, split_folder(folder, part)))]
    if parts:
        return {part: open_folder(folder, part, train_split=parts[0]) for part in parts}
    if _label_file(folder):
        return {WHOLE: open_folder(folder, PARTS[0])}
    if not subfolders(folder):
        raise UserError(f"{folder} holds {_contents(folder)}; expected {_EXPECTED}")
    above, name = os.path.split(os.path.normpath(folder))
    return {WHOLE: open_folder(above, name, train_split=name)}


def open_images(folder: str) -> dict[str, Source]:
    """As `open_parts`; a flat folder without labels is a source that knows no classes."""
    if not os.path.isdir(folder) or subfolders(folder) or _label_file(folder):
        return open_parts(folder)
    paths = list_images([folder])
    labels = np.zeros(len(paths), np.int32)
    return {WHOLE: FileSource("", pack_names(list(map(os.fsencode, paths))), labels, ())}


def left_out(folder: str, parts: Iterable[str]) -> list[str]:
    """A line on the folders that ``parts`` leave aside, such as a test/ without labels, if there are any."""
    used = {split_folder(folder, part) for part in parts}
    others = [] if used == {WHOLE} else sorted(set(subfolders(folder)) - used)
    more = ", ..." * (len(others) > 5)
    return [f"note: not looked at in {folder}: {', '.join(others[:5])}{more}"] if others else []


def _label_file(folder: str) -> bool:
    return any(os.path.isfile(os.path.join(folder, name)) for name in ("labels.txt", "labels.csv"))


def _holds_folders(folder: str) -> bool:
    return os.path.isdir(folder) and bool(subfolders(folder))


def _contents(folder: str) -> str:
    kinds = Counter("image" if is_image(name) else "other file" for name in os.listdir(folder))
    counts = [f"{count} {kind}{'s' * (count > 1)}" for kind, count in sorted(kinds.items())]
    return f"{' and '.join(counts)} and no folders" if counts else "nothing"
