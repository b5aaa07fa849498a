"""The parts of a folder, whichever way it is laid out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

import numpy as np

from mindeit.data.folders import FileSource, list_images, open_folder, shown_folders, subfolders
from mindeit.data.images import Source, is_image, split_folder
from mindeit.data.index_cache import pack_names, scan_folders
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
    return {WHOLE: _open_classes(folder)}


def _open_classes(folder: str) -> Source:
    """Folders without an image are no classes, as for finetune."""
    found = shown_folders(folder)
    index, _ = scan_folders(folder, found, is_image)
    filled, labels = np.unique(index["folder"], return_inverse=True)
    if not len(filled):
        raise UserError(f"{folder} holds {_contents(folder, len(found))}; expected {_EXPECTED}")
    empty = sorted(set(found) - {found[number] for number in filled})
    notes = (f"no images in {', '.join(empty[:5])}{', ...' * (len(empty) > 5)}: no class",) if empty else ()
    return FileSource(folder, index, labels, [found[number] for number in filled], notes=notes)


def open_images(folder: str) -> dict[str, Source]:
    """As `open_parts`; a flat folder without labels is a source that knows no classes."""
    if not os.path.isdir(folder) or shown_folders(folder) or _label_file(folder):
        return open_parts(folder)
    paths = list_images([folder])
    labels = np.zeros(len(paths), np.int32)
    return {WHOLE: FileSource("", pack_names(list(map(os.fsencode, paths))), labels, ())}


def remarks(folder: str, parts: Mapping[str, Source]) -> list[str]:
    """A line for each thing of ``folder`` that ``parts`` leave aside, such as a test/ without labels."""
    used = {split_folder(folder, part) for part in parts}
    others = [] if used == {WHOLE} else sorted(set(subfolders(folder)) - used)
    notes = [f"not looked at in {folder}: {', '.join(others[:5])}{', ...' * (len(others) > 5)}"] if others else []
    return [f"note: {line}" for line in (*notes, *(note for source in parts.values() for note in source.notes))]


def _label_file(folder: str) -> bool:
    return any(os.path.isfile(os.path.join(folder, name)) for name in ("labels.txt", "labels.csv"))


def _holds_folders(folder: str) -> bool:
    return os.path.isdir(folder) and bool(shown_folders(folder))


def _contents(folder: str, folders: int) -> str:
    kinds = Counter("image" if is_image(name) else "other file" for name in _files(folder))
    counts = [f"{count} {kind}{'s' * (count > 1)}" for kind, count in sorted(kinds.items())]
    counts += [f"{folders} folder{'s' * (folders > 1)} without images" if folders else "no folders"]
    return " and ".join(counts) if kinds or folders else "nothing"


def _files(folder: str) -> list[str]:
    return [entry.name for entry in os.scandir(folder) if not entry.is_dir()]
