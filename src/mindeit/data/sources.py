"""`open_source`: a data set's name and folder -> labelled images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mindeit.data.classes import number_as
from mindeit.data.folders import list_images, open_folder
from mindeit.data.images import Source
from mindeit.errors import UserError, nearest

__all__ = ["DATASETS", "Source", "list_images", "open_source"]


@dataclass(frozen=True)
class _Asked:
    data_dir: str
    split: str
    cache_dir: str | None
    label_file: str | None
    train_split: str


def _folder(asked: _Asked) -> Source:
    return open_folder(asked.data_dir, asked.split, asked.cache_dir, asked.label_file, asked.train_split)


def _digits(asked: _Asked) -> Source:
    from mindeit.data.digits import DigitsSource

    return DigitsSource(train=asked.split == asked.train_split)


def _cifar(classes: int, asked: _Asked) -> Source:
    from mindeit.data.cifar import CifarSource

    return CifarSource(asked.data_dir, asked.split == asked.train_split, classes)


def _inaturalist(year: int, asked: _Asked) -> Source:
    from mindeit.data.inaturalist import open_inaturalist

    return open_inaturalist(asked.data_dir, asked.split, year)


def _mindrecord(asked: _Asked) -> Source:
    from mindeit.data.mind_record import MindRecordSource

    return MindRecordSource(asked.data_dir, asked.split)


def _webdataset(asked: _Asked) -> Source:
    from mindeit.data.tar_shards import TarSource

    return TarSource(asked.data_dir, asked.split, asked.cache_dir)


_OPENERS: dict[str, Callable[[_Asked], Source]] = {
    "image_folder": _folder,
    "cifar10": partial(_cifar, 10),
    "cifar100": partial(_cifar, 100),
    "inat2018": partial(_inaturalist, 2018),
    "inat2019": partial(_inaturalist, 2019),
    "mindrecord": _mindrecord,
    "webdataset": _webdataset,
    "digits": _digits,
}
DATASETS = tuple(_OPENERS)


def open_source(
    dataset: str,
    data_dir: str | None,
    split: str,
    *,
    num_classes: int | None = None,
    cache_dir: str | None = None,
    label_file: str | None = None,
    train_split: str = "train",
) -> Source:
    """The labelled images of one split (``train`` or ``val``).

    num_classes: if given, the data has to have as many; if it only numbers its classes, at most. cache_dir: where a
    folder's index is kept (default ``~/.cache/mindeit``). label_file: for a flat folder of images, lines of
    ``image label``. train_split: the split that numbers the classes of folders.
    """
    if dataset not in _OPENERS:
        raise UserError(f"dataset is '{dataset}'; allowed: {', '.join(DATASETS)}{nearest(dataset, DATASETS)}")
    if dataset != "digits":
        if not data_dir:
            raise UserError(f"dataset '{dataset}' needs a data_dir; only 'digits' needs none")
        if not os.path.isdir(data_dir):
            raise UserError(f"data_dir {data_dir} is not a folder")
    source = _OPENERS[dataset](_Asked(data_dir or "", split, cache_dir, label_file, train_split))
    if not len(source):
        raise UserError(f"no images in split '{split}' of {dataset} at {data_dir}")
    if num_classes is not None:
        number_as(source, num_classes, None, where=data_dir or dataset, other="num_classes")
    return source
