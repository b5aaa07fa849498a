"""What the tables of models are made of. Importing it costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OFFICIAL_FILES = "https://dl.fbaipublicfiles.com/deit/"


@dataclass(frozen=True)
class Published:
    """An official weight file; a name may end in the first eight hex digits of its SHA-256.

    ``image_size`` None is the model's own. ``trained_on``: ImageNet-1k, or 21k before it; distilled: with a teacher.
    """

    file: str
    top1: float | None
    top5: float | None
    params_m: float
    gflops: float
    image_size: int | None = None
    trained_on: str = "1k"

    @property
    def url(self) -> str:
        return OFFICIAL_FILES + self.file


@dataclass(frozen=True)
class ModelSpec:
    """One model: ``variant`` holds the keyword arguments of the family's cell, ``family`` is a module of
    ``mindeit.models`` or the name of one's own (`mindeit.register_model`).

    ``published`` is the file that ``pretrained`` means, ``more`` are others that fit. ``counted`` gives parameters (M)
    and GFLOPs of a model without any.
    """

    name: str
    family: str
    image_size: int
    crop_pct: float = 0.875
    variant: Mapping[str, Any] = field(default_factory=dict)
    published: Published | None = None
    more: tuple[Published, ...] = ()
    counted: tuple[float, float] | None = None

    @property
    def files(self) -> tuple[Published, ...]:
        return () if self.published is None else (self.published, *self.more)

    @property
    def distilled(self) -> bool:
        return bool(self.variant.get("distilled", False))
