"""Pictures in folders: one folder per class, or one flat folder with a label file."""
from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence

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
)
from mindeit.data.index_cache import Arrays, cached_arrays, pack_names, scan_folders
from mindeit.errors import UserError, nearest

_LABEL_FILES = ("labels.txt", "labels.csv")


class FileSource(Source):
    """Pictures that are files below ``root``; names: see `index_cache.pack_names`."""

    def __init__(self, root: str, names: Arrays, labels: np.ndarray, class_names: Sequence[str]):
        self.labels, self.class_names = np.asarray(labels, np.int32), tuple(class_names)
        self._root, self._names, self._ends = root, names["names"], names["ends"]

    def where(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return os.path.join(self._root, os.fsdecode(self._names[start:self._ends[index]].tobytes()))

    def read(self, index: int) -> Image.Image:
        path = self.where(index)
        return decode_rgb(path, path)


def open_folder(data_dir: str, split: str, cache_dir: str | None = None, label_file: str | None = None) -> Source:
    """``data_dir/split/<class>/...`` or, where ``data_dir/split`` is missing, a flat folder with a label file.

    label_file: always the flat layout, with this file.
    """
    if label_file is not None:
        return _open_flat(data_dir, label_file)
    root = os.path.join(data_dir, split)
    if os.path.isdir(root):
        return _open_class_folders(data_dir, split, cache_dir)
    for name in _LABEL_FILES:
        if os.path.isfile(os.path.join(data_dir, name)):
            return _open_flat(data_dir, os.path.join(data_dir, name))
    raise UserError(f"no '{split}' folder in {data_dir}, and no {' or '.join(_LABEL_FILES)} for a flat folder; "
                    f"there is: {_listing(data_dir)}")


def subfolders(root: str) -> list[str]:
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())


def _listing(folder: str) -> str:
    names = sorted(os.listdir(folder))
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _open_class_folders(data_dir: str, split: str, cache_dir: str | None) -> Source:
    root = os.path.join(data_dir, split)
    classes = _class_list(data_dir, split)
    here = subfolders(root)
    strangers = sorted(set(here) - set(classes))
    if strangers:
        raise UserError(f"class folder '{strangers[0]}' in {root} is missing in {os.path.join(data_dir, 'train')}"
                        f"{nearest(strangers[0], classes)}{_and_more(strangers)}")
    if not here:
        raise UserError(f"no class folders in {root}: expected {root}/<class>/<picture>.jpg")
    key = ("folders", os.path.abspath(root), *here)
    index = cached_arrays(key, lambda: scan_folders(os.path.abspath(root), here, is_image), cache_dir)
    empty = np.setdiff1d(np.arange(len(here)), index["folder"])
    if len(empty):
        raise UserError(f"no pictures in {os.path.join(root, here[empty[0]])} ({', '.join(EXTENSIONS)})"
                        f"{_and_more(empty)}")
    label_of = np.array([classes.index(name) for name in here], np.int32)
    return FileSource(root, index, label_of[index["folder"]], classes)


def _class_list(data_dir: str, split: str) -> list[str]:
    """The classes of ``train/`` decide the labels of every split, so a missing class in ``val/`` shifts nothing."""
    train = os.path.join(data_dir, "train")
    return subfolders(train if os.path.isdir(train) else os.path.join(data_dir, split))


def _and_more(items: Sequence[object]) -> str:
    return f", and {len(items) - 1} more" if len(items) > 1 else ""


def _open_flat(root: str, label_file: str) -> Source:
    """Lines ``filename label`` (``.txt``) or ``filename,label`` (``.csv``); a label is an index or a class name."""
    names, words = _read_label_file(label_file)
    for number, name in enumerate(names, 1):
        if not os.path.isfile(os.path.join(root, name)):
            raise UserError(f"{label_file} names '{name}', which is not in {root} (entry {number})")
    classes = read_class_file(root)
    if all(re.fullmatch("-?[0-9]{1,9}", word) for word in words):
        labels = np.array([int(word) for word in words], np.int64)
        classes = classes or numbered_classes(labels)
    else:
        classes = classes or tuple(sorted(set(words)))
        unknown = [word for word in words if word not in set(classes)]
        if unknown:
            raise UserError(f"{label_file}: label '{unknown[0]}' is not in {os.path.join(root, CLASS_FILE)}"
                            f"{nearest(unknown[0], classes)}")
        index_of = {name: index for index, name in enumerate(classes)}
        labels = np.array([index_of[word] for word in words], np.int64)
    check_labels(labels, len(classes), label_file, names.__getitem__)
    return FileSource(root, pack_names([os.fsencode(name) for name in names]), labels, classes)


def _read_label_file(path: str) -> tuple[list[str], list[str]]:
    if not os.path.isfile(path):
        raise UserError(f"label file {path} does not exist")
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        if path.endswith(".csv"):
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
        else:
            rows = [line.strip().rsplit(None, 1) for line in file if line.strip()]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise UserError(f"{path}, entry {number}: expected a file name and a label, found {' '.join(row)!r}")
    if rows and not is_image(rows[0][0]):  # a heading such as filename,label
        rows = rows[1:]
    if not rows:
        raise UserError(f"{path} lists no pictures")
    return [row[0] for row in rows], [row[1] for row in rows]


def list_images(paths: Sequence[str]) -> list[str]:
    """Every argument is a picture or a folder of pictures (top level, sorted by name)."""
    found: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            inside = sorted(name for name in os.listdir(path) if is_image(name))
            if not inside:
                raise UserError(f"no pictures in folder {path} ({', '.join(EXTENSIONS)})")
            found += [os.path.join(path, name) for name in inside]
        elif os.path.exists(path):
            found.append(path)
        else:
            folder = os.path.dirname(path) or "."
            hint = nearest(os.path.basename(path), os.listdir(folder)) if os.path.isdir(folder) else ""
            raise UserError(f"no such picture or folder: {path}{hint}")
    return found
