"""`open_source`: a data set's name and folder -> labelled images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mindeit.data.cifar import CifarSource
from mindeit.data.classes import number_as
from mindeit.data.digits import DigitsSource
from mindeit.data.folders import list_images, open_folder
from mindeit.data.imagenet_sets import IMAGENET_SETS, REAL, open_imagenet_set, open_real
from mindeit.data.images import Source
from mindeit.data.inaturalist import open_inaturalist
from mindeit.data.mind_record import MindRecordSource
from mindeit.data.split import DRAWN, Division
from mindeit.data.tar_shards import TarSource
from mindeit.errors import UserError, nearest

__all__ = ["DATASETS", "Source", "list_images", "open_source"]


@dataclass(frozen=True)
class _Request:
    data_dir: str
    split: str
    cache_dir: str | None
    label_file: str | None
    train_split: str
    division: Division


def _folder(request: _Request) -> Source:
    return open_folder(
        request.data_dir, request.split, request.cache_dir, request.label_file, request.train_split, request.division
    )


def _digits(request: _Request) -> Source:
    return DigitsSource(train=request.split == request.train_split)


def _cifar(classes: int, request: _Request) -> Source:
    return CifarSource(request.data_dir, request.split == request.train_split, classes)


def _inaturalist(year: int, request: _Request) -> Source:
    return open_inaturalist(request.data_dir, request.split, year)


def _mindrecord(request: _Request) -> Source:
    return MindRecordSource(request.data_dir, request.split)


def _webdataset(request: _Request) -> Source:
    return TarSource(request.data_dir, request.split, request.cache_dir)


def _imagenet_set(dataset: str, request: _Request) -> Source:
    if request.split == request.train_split:
        raise UserError(f"dataset is '{dataset}', which is for evaluation (validate.py): nothing to train on")
    if dataset == REAL:
        return open_real(request.data_dir, request.cache_dir)
    return open_imagenet_set(dataset, request.data_dir, request.cache_dir)


_OPENERS: dict[str, Callable[[_Request], Source]] = {
    "image_folder": _folder,
    "cifar10": partial(_cifar, 10),
    "cifar100": partial(_cifar, 100),
    "inat2018": partial(_inaturalist, 2018),
    "inat2019": partial(_inaturalist, 2019),
    "mindrecord": _mindrecord,
    "webdataset": _webdataset,
    "digits": _digits,
    **{name: partial(_imagenet_set, name) for name in IMAGENET_SETS},
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
    division: Division = DRAWN,
) -> Source:
    """The labelled images of one split (``train`` or ``val``).

    num_classes: if given, the data has to have as many; if it only numbers its classes, at most. cache_dir: where a
    folder's index is kept (default ``~/.cache/mindeit``). label_file: for a flat folder of images, lines of
    ``image label``. train_split: the split that numbers the classes of folders. division: of a plain class folder.
    """
    if dataset not in _OPENERS:
        raise UserError(f"dataset is '{dataset}'; allowed: {', '.join(DATASETS)}{nearest(dataset, DATASETS)}")
    if dataset != "digits":
        if not data_dir:
            raise UserError(f"dataset '{dataset}' needs a data_dir; only 'digits' needs none")
        if not os.path.isdir(data_dir):
            raise UserError(f"data_dir {data_dir} is not a folder")
    source = _OPENERS[dataset](_Request(data_dir or "", split, cache_dir, label_file, train_split, division))
    if not len(source):
        raise UserError(f"no images in split '{split}' of {dataset} at {data_dir}")
    if num_classes is not None:
        number_as(source, num_classes, None, where=data_dir or dataset, other="num_classes")
    return source
