"""The model card: what is needed to use weights, stored in their file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

from mindeit import typed
from mindeit.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from mindeit.errors import UserError
from mindeit.files import PathLike
from mindeit.typed import Bounds, Count

if TYPE_CHECKING:
    from mindeit.models.spec import ModelSpec

Positive = Annotated[float, Bounds(above=0)]


@dataclass(frozen=True)
class ModelCard:
    """What a checkpoint carries besides weights. ``counters`` keeps BatchNorm's step counts of official files;
    ``temperature``, by which logits are divided for scores that can be trusted, was fitted to these very weights."""

    model: str
    num_classes: Count
    image_size: Annotated[int, Bounds(at_least=1)]
    crop_pct: Annotated[float, Bounds(above=0, at_most=1)]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD
    class_names: Optional[tuple[str, ...]] = None
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    counters: Mapping[str, int] = field(default_factory=dict)
    temperature: Optional[Positive] = None

    def to_json(self) -> str:
        """Without a temperature that is None, so that earlier versions can read the rest."""
        return json.dumps({key: value for key, value in asdict(self).items() if (key, value) != ("temperature", None)})

    @classmethod
    def from_json(cls, text: str, where: object = "model card") -> ModelCard:
        return cls.of(typed.parse(text, where), where)

    @classmethod
    def of(cls, values: Any, where: object) -> ModelCard:
        """From entries that a file holds."""
        card = typed.read(cls, values, where)
        names = card.class_names
        if names is not None and len(names) != card.num_classes:
            raise UserError(f"{where}: class_names holds {len(names)} names, allowed: {card.num_classes} (num_classes)")
        return card


def card_for(
    spec: ModelSpec,
    num_classes: int,
    image_size: Optional[int] = None,
    class_names: Optional[tuple[str, ...]] = None,
    counters: Mapping[str, int] = {},  # noqa: B006 (never changed)
) -> ModelCard:
    return ModelCard(
        model=spec.name,
        num_classes=num_classes,
        image_size=image_size or spec.image_size,
        crop_pct=spec.crop_pct,
        class_names=class_names,
        counters=dict(counters),
    )


def check_against_card(card: ModelCard, asked: Mapping[str, Any], where: PathLike, remedy: str) -> None:
    """Requested fields may repeat the card of a file, but not contradict it."""
    for name, value in asked.items():
        if getattr(card, name) not in (None, value):
            raise UserError(
                f"{name} is {value}, but {where} was made for {getattr(card, name)}; leave it out, or {remedy}"
            )
