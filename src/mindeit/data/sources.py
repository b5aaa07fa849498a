"""`open_source`: a data set's name and folder -> labelled pictures."""
from __future__ import annotations

import os
from collections.abc import Callable

from mindeit.data.classes import number_as
from mindeit.data.folders import list_images, open_folder
from mindeit.data.images import Source
from mindeit.errors import UserError, nearest

__all__ = ["DATASETS", "Source", "list_images", "open_source"]

_Opener = Callable[[str, str, "str | None", "str | None"], Source]  # data_dir, split, cache_dir, label_file


def _digits(data_dir: str, split: str, cache_dir: str | None, label_file: str | None) -> Source:
    from mindeit.data.digits import DigitsSource
    return DigitsSource(train=split == "train")


def _cifar(classes: int) -> _Opener:
    def open_cifar(data_dir: str, split: str, cache_dir: str | None, label_file: str | None) -> Source:
        from mindeit.data.cifar import CifarSource
        return CifarSource(data_dir, split == "train", classes)
    return open_cifar


def _inaturalist(year: int) -> _Opener:
    def open_year(data_dir: str, split: str, cache_dir: str | None, label_file: str | None) -> Source:
        from mindeit.data.inaturalist import open_inaturalist
        return open_inaturalist(data_dir, split, year)
    return open_year


def _mindrecord(data_dir: str, split: str, cache_dir: str | None, label_file: str | None) -> Source:
    from mindeit.data.mind_record import MindRecordSource
    return MindRecordSource(data_dir, split)


def _webdataset(data_dir: str, split: str, cache_dir: str | None, label_file: str | None) -> Source:
    from mindeit.data.tar_shards import TarSource
    return TarSource(data_dir, split, cache_dir)


_OPENERS: dict[str, _Opener] = {
    "image_folder": open_folder, "imagenet": open_folder, "cifar10": _cifar(10), "cifar100": _cifar(100),
    "inat2018": _inaturalist(2018), "inat2019": _inaturalist(2019), "mindrecord": _mindrecord,
    "webdataset": _webdataset, "digits": _digits}
DATASETS = tuple(_OPENERS)
_SPELLINGS = {"imagefolder": "image_folder", "inat18": "inat2018", "inat19": "inat2019", "tar": "webdataset"}


def open_source(dataset: str, data_dir: str | None, split: str, *, num_classes: int | None = None,
                cache_dir: str | None = None, label_file: str | None = None) -> Source:
    """The labelled pictures of one split (``train`` or ``val``).

    num_classes: if given, the data has to have as many; if it only numbers its classes, at most. cache_dir: where a
    folder's index is kept (default ``~/.cache/mindeit``). label_file: for a flat folder of pictures, lines of
    ``picture label``.
    """
    name = _SPELLINGS.get(dataset, dataset)
    if name not in _OPENERS:
        raise UserError(f"dataset is '{dataset}'; allowed: {', '.join(DATASETS)}{nearest(dataset, DATASETS)}")
    if name != "digits":
        if not data_dir:
            raise UserError(f"dataset '{dataset}' needs a data_dir; only 'digits' needs none")
        if not os.path.isdir(data_dir):
            raise UserError(f"data_dir {data_dir} is not a folder")
    source = _OPENERS[name](data_dir or "", split, cache_dir, label_file)
    if not len(source):
        raise UserError(f"no pictures in split '{split}' of {dataset} at {data_dir}")
    if num_classes is not None:
        number_as(source, num_classes, None, where=data_dir or dataset, other="num_classes")
    return source
