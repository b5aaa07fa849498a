"""iNaturalist 2018 and 2019: the official json files beside the folder of images."""

from __future__ import annotations

import operator
import os

import numpy as np

from mindeit.data.folders import FileSource
from mindeit.data.images import Source
from mindeit.data.index_cache import pack_names
from mindeit.errors import UserError, shorten
from mindeit.files import read_json


def open_inaturalist(data_dir: str, split: str, year: int) -> Source:
    """``data_dir/{train,val}{year}.json`` and the images its ``file_name``s lead to. Label = category id."""
    path = os.path.join(data_dir, f"{split}{year}.json")
    content = read_json(path)
    try:
        category_of = {row["image_id"]: operator.index(row["category_id"]) for row in content["annotations"]}
        names = [str(row["file_name"]) for row in content["images"]]
        ids = [category_of[row["id"]] for row in content["images"]]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} lacks {shorten(error)}: expected 'images' (id, file_name) and 'annotations' "
            "(image_id, category_id)"
        ) from error
    categories = _categories(data_dir, content, path)
    label_of = {category: label for label, category in enumerate(sorted(categories))}
    for name, category in zip(names, ids):
        if category not in label_of:
            raise UserError(f"{path}: category {category} of {name} is not among the {len(categories)} categories")
    if names and not os.path.exists(os.path.join(data_dir, names[0])):
        names = [_without_kingdom(name) for name in names]
    stored = [name.encode("utf-8", "surrogatepass") for name in names]
    return FileSource(
        data_dir,
        pack_names(stored),
        np.array([label_of[i] for i in ids], np.int32),
        [categories[category] for category in sorted(categories)],
    )


def _without_kingdom(name: str) -> str:
    """``train_val2018/Aves/2761/x.jpg`` -> ``train_val2018/2761/x.jpg``: some copies lack the middle folder."""
    parts = name.split("/")
    return "/".join(parts[:1] + parts[2:]) if len(parts) == 4 else name


def _categories(data_dir: str, content: dict, path: str) -> dict[int, str]:
    """{id: name}, from ``categories.json`` (in 2018 the other files have no names) or the file itself."""
    separate = os.path.join(data_dir, "categories.json")
    try:
        rows = read_json(separate) if os.path.isfile(separate) else content["categories"]
        return {operator.index(row["id"]): str(row["name"]) for row in rows}
    except (KeyError, TypeError) as error:
        raise UserError(f"no categories (id, name) in {path} or {separate}") from error
