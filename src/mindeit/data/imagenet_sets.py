"""Evaluation sets for models of ImageNet, laid out as published: ReaL, V2, A, R and Sketch."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mindeit.data.folders import FileSource, index_folders, subfolders
from mindeit.data.index_cache import pack_names
from mindeit.errors import UserError, nearest, shorten
from mindeit.files import read_json

REAL = "imagenet-real"
_REAL_FILE, _REAL_IMAGES = "real.json", 50_000
_IMAGE_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)


class _Published(NamedTuple):
    """``folder``: what the archive unpacks to."""

    folder: str
    classes: int


_PUBLISHED = {
    "imagenet-v2": _Published("imagenetv2-matched-frequency-format-val", 1000),
    "imagenet-a": _Published("imagenet-a", 200),
    "imagenet-r": _Published("imagenet-r", 200),
    "imagenet-sketch": _Published("sketch", 1000),
}
IMAGENET_SETS = (REAL, *_PUBLISHED)


@cache
def imagenet_ids() -> tuple[str, ...]:
    """The WordNet ids of ImageNet's classes, in the order of the classes, which is that of the alphabet."""
    return tuple(Path(__file__).with_name("imagenet_ids.txt").read_text(encoding="ascii").split())


class ImageNetSource(FileSource):
    """Images for a model of ImageNet, whose logits of ``class_names`` (WordNet ids) count alone."""

    def places_in(self, num_classes: int, names: Sequence[str] | None, *, where: str, other: str) -> np.ndarray:
        """The numbers of these classes, (classes,), in a model of ``num_classes`` classes: by their ids, if that is
        how it names its own, else in ImageNet's order. ``where`` and ``other`` are the two in messages."""
        ids = imagenet_ids()
        if num_classes != len(ids):
            raise UserError(f"{where} is for models of ImageNet's {len(ids)} classes, {other} has {num_classes}")
        place = {name: number for number, name in enumerate(ids if set(ids).isdisjoint(names or ()) else names or ())}
        unknown = next((name for name in self.class_names if name not in place), None)
        if unknown is not None:
            raise UserError(f"{where}: class '{unknown}' is none of the {num_classes} classes of {other}")
        return np.array([place[name] for name in self.class_names])

    def _names_as_bytes(self) -> tuple[bytes, ...]:
        answers = () if self.answers is None else (self.answers.tobytes(),)
        return (*super()._names_as_bytes(), *answers)


def open_imagenet_set(dataset: str, data_dir: str, cache_dir: str | None = None) -> ImageNetSource:
    """``data_dir/<class>/...`` or that in the folder of the archive; a class is a WordNet id, in V2 a number."""
    published, ids = _PUBLISHED[dataset], imagenet_ids()
    inside = os.path.join(data_dir, published.folder)
    root = inside if os.path.isdir(inside) else data_dir
    by_number = dataset == "imagenet-v2"
    number = {name: number for number, name in enumerate(map(str, range(len(ids))) if by_number else ids)}
    here = subfolders(root)
    _check_folders(root, here, number, "class number (0 to 999)" if by_number else "WordNet id of ImageNet's classes")
    here.sort(key=number.__getitem__)
    index = index_folders(root, here, cache_dir)
    labels, classes = index["folder"], [ids[number[name]] for name in here]
    notes = () if len(here) == published.classes else (_odd_number(root, len(here), dataset, published.classes),)
    if published.classes == len(ids):
        labels, classes = np.array([number[name] for name in here])[labels], list(ids)
    return ImageNetSource(root, index, labels, classes, notes=notes)


def _check_folders(root: str, here: Sequence[str], known: dict[str, int], what: str) -> None:
    if not here:
        raise UserError(f"no class folders in {root}: expected {root}/{next(iter(known))}/<image>.jpg and so on")
    strangers = [name for name in here if name not in known]
    if strangers:
        more = f", and {len(strangers) - 1} more are none" if len(strangers) > 1 else ""
        raise UserError(f"folder '{strangers[0]}' in {root} is no {what}{nearest(strangers[0], known, 0.8)}{more}")


def _odd_number(root: str, found: int, dataset: str, published: int) -> str:
    alone = "" if published == len(imagenet_ids()) else "; accuracy is that among these classes"
    return f"{root} has {found} class folders, {dataset} as published {published}{alone}"


def open_real(data_dir: str, cache_dir: str | None = None) -> ImageNetSource:
    """ImageNet's validation images, below ``data_dir/val`` or ``data_dir``, and ``real.json``, which lists the right
    classes of each. Images that have none are left out."""
    right = _read_real(os.path.join(data_dir, _REAL_FILE))
    part = "val" if os.path.isdir(os.path.join(data_dir, "val")) else "."
    index = index_folders(data_dir, [part], cache_dir)
    whole = FileSource(data_dir, index, index["folder"], ())
    names = [os.path.relpath(whole.where(number), data_dir) for number in range(len(whole))]
    classes = [right[number] for number in _numbers(names, data_dir)]
    answers = [sorted(set(own)) for own in classes if own]
    most = max(map(len, answers), default=1)
    table = np.array([own + own[-1:] * (most - len(own)) for own in answers], np.int32).reshape(-1, most)
    kept = pack_names([os.fsencode(name) for name, own in zip(names, classes) if own])
    notes = (f"{data_dir} has {len(names)} of the {_REAL_IMAGES} validation images",)
    source = ImageNetSource(
        data_dir, kept, table[:, 0], imagenet_ids(), notes=() if len(names) == _REAL_IMAGES else notes
    )
    source.answers = table
    return source


def _read_real(path: str) -> list[list[int]]:
    rows, allowed = read_json(path), frozenset(range(len(imagenet_ids())))
    if not isinstance(rows, list) or len(rows) != _REAL_IMAGES:
        raise UserError(f"{path}: expected a list of {_REAL_IMAGES} lists of class numbers")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or not all(type(label) is int and label in allowed for label in row):
            raise UserError(f"{path}: entry {number} is {shorten(row)}, allowed: a list of class numbers 0 to 999")
    return rows


def _numbers(names: Sequence[str], data_dir: str) -> list[int]:
    """The place of each image in ``real.json``."""
    first: dict[int, str] = {}
    for name in names:
        found = _IMAGE_NUMBER.fullmatch(os.path.basename(name))
        number = int(found[1]) if found else 0
        if not 0 < number <= _REAL_IMAGES:
            path = os.path.join(data_dir, name)
            raise UserError(f"{path}: is no validation image, ILSVRC2012_val_00000001.JPEG to ...00050000.JPEG")
        if number in first:
            raise UserError(f"{data_dir} has validation image {number} twice: {first[number]} and {name}")
        first[number] = name
    return [number - 1 for number in first]
