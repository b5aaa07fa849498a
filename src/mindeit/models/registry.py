"""Models by their official names: list them, look one up, build one."""
from __future__ import annotations

import fnmatch
import importlib
from typing import TYPE_CHECKING, Optional

from mindeit.errors import UserError, nearest
from mindeit.models.catalogue import CATALOGUE
from mindeit.models.spec import ModelSpec

if TYPE_CHECKING:
    from mindspore import nn


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, such as ``"deit_*"``, in the table's order."""
    return fnmatch.filter(CATALOGUE, pattern)


def spec(name: str) -> ModelSpec:
    """The table's row of ``name``; an unknown name is an error that tells the nearest."""
    if name not in CATALOGUE:
        raise UserError(f"unknown model '{name}'{nearest(name, CATALOGUE)}; python convert_pt2ms.py --list shows all")
    return CATALOGUE[name]


def build(
    name: str,
    *,
    num_classes: int = 1000,
    image_size: Optional[int] = None,
    drop_path_rate: float = 0.0,
    drop_rate: float = 0.0,
) -> nn.Cell:
    """A fresh model. ``num_classes=0`` leaves the head out; ``image_size`` None is the model's own."""
    row = spec(name)
    if num_classes < 0:
        raise UserError(f"num_classes is {num_classes}; allowed: 0 (features) or the number of classes")
    for key, rate in (("drop_path_rate", drop_path_rate), ("drop_rate", drop_rate)):
        if not 0 <= rate < 1:
            raise UserError(f"{key} is {rate}; allowed: at least 0 and less than 1")
    family = importlib.import_module(f"mindeit.models.{row.family}")
    return family.build(
        **row.variant,
        num_classes=num_classes,
        image_size=row.image_size if image_size is None else image_size,
        drop_path_rate=drop_path_rate,
        drop_rate=drop_rate,
    )
