"""Images in folders: one folder per class, or one flat folder with a label file."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from mindeit.data.images import (
    CLASS_FILE,
    EXTENSIONS,
    Source,
    check_labels,
    decode_rgb,
    is_image,
    numbered_classes,
    read_class_file,
    split_folder,
)
from mindeit.data.index_cache import Arrays, cached_arrays, pack_names, scan_folders
from mindeit.data.split import DRAWN, Division
from mindeit.errors import UserError, nearest, shorten

_PARTS = {"train", "val", "valid", "validation", "test"}  # names that are no classes
_LABEL_FILES = ("labels.txt", "labels.csv")
_HEADINGS = {
    f"{what}{kind}"
    for what in ("", "file", "image", "img", "picture")
    for kind in ("", "s", "file", "name", "path", "id")
} - {"", "s"}  # compared with the letters of the first word


class FileSource(Source):
    """Images that are files below ``root``; names: see `index_cache.pack_names`."""

    def __init__(
        self,
        root: str,
        names: Arrays,
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        named: bool = True,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.labels, self.class_names = np.asarray(labels, np.int32), tuple(map(_as_text, class_names))
        self.named, self.notes = named, notes
        self._root, self._names, self._ends = root, names["names"], names["ends"]

    def where(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return os.path.join(self._root, os.fsdecode(self._names[start : self._ends[index]].tobytes()))

    def read(self, index: int) -> Image.Image:
        path = self.where(index)
        return decode_rgb(path, path)

    def _names_as_bytes(self) -> tuple[bytes, ...]:
        return self._names.tobytes(), self._ends.tobytes()


def open_folder(
    data_dir: str,
    split: str,
    cache_dir: str | None = None,
    label_file: str | None = None,
    train_split: str = "train",
    division: Division = DRAWN,
) -> Source:
    """``data_dir/split/<class>/...`` or, where ``data_dir/split`` is missing, a flat folder with a label file, or
    ``data_dir/<class>/...``, of which ``division`` says what is held out.

    label_file: always the flat layout, with this file.
    """
    if label_file is not None:
        return _open_flat(data_dir, label_file)
    folder, train = split_folder(data_dir, split), split_folder(data_dir, train_split)
    divided = [name for name in (folder, train) if os.path.isdir(os.path.join(data_dir, name))]
    if divided and division.file is not None and division.needed:
        raise UserError(f"split_file is {division.file}, but {data_dir} has a folder '{divided[0]}': leave it out")
    if folder in divided:
        return _open_class_folders(data_dir, folder, cache_dir, train)
    for name in _LABEL_FILES:
        if os.path.isfile(os.path.join(data_dir, name)):
            return _open_flat(data_dir, os.path.join(data_dir, name))
    classes = shown_folders(data_dir)
    if len(classes) > 1 and not divided and not _PARTS & set(classes):
        return _open_plain(data_dir, classes, cache_dir, division, part=int(split != train_split))
    raise UserError(
        f"no '{split}' folder in {data_dir}, no folders of two classes or more, and no {' or '.join(_LABEL_FILES)} for "
        f"a flat folder; there is: {_listing(data_dir)}"
    )


def subfolders(root: str) -> list[str]:
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())


def shown_folders(root: str) -> list[str]:
    return [name for name in subfolders(root) if not name.startswith(".")]


def _listing(folder: str) -> str:
    names = sorted(os.listdir(folder))
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


class PartSource(FileSource):
    """A part of a plain class folder."""

    def table(self) -> tuple[list[str], list[str]]:
        """The name and the class of each image."""
        names = [os.path.relpath(self.where(index), self._root) for index in range(len(self))]
        return names, [self.class_names[label] for label in self.labels]


def _open_plain(data_dir: str, folders: list[str], cache_dir: str | None, division: Division, part: int) -> Source:
    root = os.path.abspath(data_dir)
    index = cached_arrays(("folders", root, *folders), lambda: scan_folders(root, folders, is_image), cache_dir)
    filled, labels = np.unique(index["folder"], return_inverse=True)
    classes = [folders[number] for number in filled]
    whole = FileSource(data_dir, index, labels, classes)
    names = [os.path.relpath(whole.where(number), data_dir) for number in range(len(whole))]
    parts, notes = division.parts(names, whole.labels, data_dir)
    chosen = parts == part
    return PartSource(
        data_dir,
        pack_names([os.fsencode(name) for name, wanted in zip(names, chosen) if wanted]),
        whole.labels[chosen],
        classes,
        notes=(*_odd_classes(data_dir, folders, classes, whole.labels), *notes) if part == 0 else notes,
    )


def _odd_classes(data_dir: str, folders: list[str], classes: list[str], labels: np.ndarray) -> Iterator[str]:
    """What a plain folder holds that will not be used, or not twice."""
    empty, single = sorted(set(folders) - set(classes)), np.flatnonzero(np.bincount(labels) == 1)
    if empty:
        yield f"no images in {os.path.join(data_dir, empty[0])}: no class{_and_more(empty)}"
    if len(single):
        name = classes[single[0]]
        yield f"class '{name}' has one image: it trains, none is held out{_and_more(single.tolist())}"
    loose = sum(is_image(name) for name in os.listdir(data_dir))
    if loose:
        yield f"{loose} images lie in {data_dir} itself, in no class: left out"


def _open_class_folders(data_dir: str, split: str, cache_dir: str | None, train_split: str) -> Source:
    """The training split numbers the classes of all splits, so a class that another split lacks shifts no label."""
    root, train = os.path.join(data_dir, split), os.path.join(data_dir, train_split)
    classes = subfolders(train if os.path.isdir(train) else root)
    here = subfolders(root)
    strangers = sorted(set(here) - set(classes))
    if strangers:
        raise UserError(
            f"class folder '{strangers[0]}' in {root} is missing in {train}"
            f"{nearest(strangers[0], classes)}{_and_more(strangers)}"
        )
    if not here:
        raise UserError(f"no class folders in {root}: expected {root}/<class>/<image>.jpg")
    index = index_folders(root, here, cache_dir)
    label_of = np.array([classes.index(name) for name in here], np.int32)
    return FileSource(root, index, label_of[index["folder"]], classes)


def index_folders(root: str, folders: Sequence[str], cache_dir: str | None) -> Arrays:
    """The images of each folder below ``root``, as `scan_folders` lists them; a folder without any is an error."""
    above = os.path.abspath(root)
    index = cached_arrays(("folders", above, *folders), lambda: scan_folders(above, folders, is_image), cache_dir)
    empty = np.setdiff1d(np.arange(len(folders)), index["folder"])
    if len(empty):
        raise UserError(
            f"no images in {os.path.join(root, folders[empty[0]])} ({', '.join(EXTENSIONS)}){_and_more(empty.tolist())}"
        )
    return index


def _and_more(items: Sequence[object]) -> str:
    return f", and {len(items) - 1} more" if len(items) > 1 else ""


def _as_text(name: str) -> str:
    """A folder's name, which need not be UTF-8, as a class name, which goes into many files."""
    return name.encode("utf-8", "backslashreplace").decode()


def _open_flat(root: str, label_file: str) -> Source:
    """Lines ``filename label`` (``.txt``) or ``filename,label`` (``.csv``); a label is an index or a class name."""
    rows, notes = _without_heading(_read_label_file(label_file), root, label_file)
    for number, name, _ in rows:
        if not os.path.isfile(os.path.join(root, name)):
            raise UserError(f"{label_file} names '{shorten(name, 200)}', which is not in {root} (entry {number})")
    names, words = [name for _, name, _ in rows], [word for _, _, word in rows]
    classes = read_class_file(root)
    numbers = all(re.fullmatch("-?[0-9]{1,9}", word) for word in words)
    named = bool(classes) or not numbers
    if numbers:
        labels = np.array([int(word) for word in words], np.int64)
        classes = classes or numbered_classes(labels)
    else:
        classes = classes or tuple(sorted(set(words)))
        index_of = {name: index for index, name in enumerate(classes)}
        unknown = next((word for word in words if word not in index_of), None)
        if unknown is not None:
            raise UserError(
                f"{label_file}: label '{shorten(unknown)}' is not in {os.path.join(root, CLASS_FILE)}"
                f"{nearest(unknown, classes)}"
            )
        labels = np.array([index_of[word] for word in words], np.int64)
    labels = check_labels(labels, len(classes), label_file, names.__getitem__)
    return FileSource(
        root, pack_names([os.fsencode(name) for name in names]), labels, classes, named=named, notes=notes
    )


def _read_label_file(path: str) -> list[tuple[int, str, str]]:
    """(number of the entry, name, label)."""
    if not os.path.isfile(path):
        raise UserError(f"label file {path} does not exist")
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        try:
            if path.endswith(".csv"):
                rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
            else:
                rows = [line.strip().rsplit(None, 1) for line in file if line.strip()]
        except csv.Error as error:
            raise UserError(f"{path} is not a table of file names and labels: {error}") from None
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise UserError(
                f"{path}, entry {number}: expected a file name and a label, found '{shorten(' '.join(row))}'"
            )
    return [(number, name, word) for number, (name, word) in enumerate(rows, 1)]


def _without_heading(
    rows: list[tuple[int, str, str]], root: str, path: str
) -> tuple[list[tuple[int, str, str]], tuple[str, ...]]:
    """The rows and a note on the first one, if it is a heading such as ``filename,label`` and no file."""
    notes: tuple[str, ...] = ()
    if rows:
        _, name, word = rows[0]
        if re.sub("[^a-z]", "", name.lower()) in _HEADINGS and not os.path.exists(os.path.join(root, name)):
            rows, notes = rows[1:], (f"{path}: the first line, '{name} {shorten(word)}', is taken for a heading",)
    if not rows:
        raise UserError(f"{path} lists no images")
    return rows, notes


def list_images(paths: Sequence[str]) -> list[str]:
    """Each path is an image, or a folder of images (top level, sorted by name)."""
    found: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            inside = sorted(name for name in os.listdir(path) if is_image(name))
            if not inside:
                raise UserError(f"no images in folder {path} ({', '.join(EXTENSIONS)})")
            found += [os.path.join(path, name) for name in inside]
        elif os.path.exists(path):
            found.append(path)
        else:
            folder = os.path.dirname(path) or "."
            hint = nearest(os.path.basename(path), os.listdir(folder)) if os.path.isdir(folder) else ""
            raise UserError(f"no such image or folder: {path}{hint}")
    return found
