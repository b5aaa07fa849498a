"""The description of an exported file: in the metadata of ONNX, or in a JSON file beside MindIR."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, get_type_hints

import numpy as np

from mindeit import typed
from mindeit.errors import UserError
from mindeit.files import PathLike
from mindeit.typed import Bounds
from mindeit.weights.card import ModelCard
from mindeit.weights.class_names import class_names

DYNAMIC = "dynamic"
MEAN, BOTH = "mean", "both"
LOGITS, FEATURES, ATTENTION = KINDS = ("logits", "features", "attention")
ATTENTION_HEADS = "attention_heads"
_KIND_OF = {
    **{f"{head}{kind}": kind for head in ("", "cls_", "dist_") for kind in (LOGITS, FEATURES)},
    ATTENTION: ATTENTION,
    ATTENTION_HEADS: ATTENTION,
}
_LEVELS = (1 / 255, 1 / 255, 1 / 255)  # a standard deviation that leaves 0 to 255
_CARD = ("model", "num_classes", "image_size", "crop_pct", "mean", "std", "interpolation")
_TEMPERATURE = "temperature"  # which only calibrated models have
_FIELDS = {
    **{key: get_type_hints(ModelCard, include_extras=True)[key] for key in (*_CARD, _TEMPERATURE)},
    "class_names": tuple[str, ...],
    "outputs": tuple[str, ...],
    "batch": Union[Literal["dynamic"], Annotated[int, Bounds(at_least=1)]],
    "heads": Literal["mean", "both"],
    "precision": Literal["fp32", "fp16", "fp16-weights", "int8"],
    "preprocess": bool,
}
_TEXTS = ("model", "heads", "precision", "interpolation")


@dataclass(frozen=True)
class Description:
    """``batch`` None: any. ``heads``: of a distilled model, their mean or both; ``preprocess``: uint8 images in.

    ``asked``: the kinds of results, in their order; empty: logits, or features where there are no classes.
    """

    card: ModelCard
    batch: int | None = None
    heads: str = MEAN
    precision: str = "fp32"
    preprocess: bool = False
    asked: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        return self.asked or (self.main,)

    @property
    def main(self) -> str:
        """The kind of result that the model itself gives."""
        return LOGITS if self.card.num_classes else FEATURES

    @property
    def outputs(self) -> tuple[str, ...]:
        """Their names in the file."""
        return tuple(name for kind in self.kinds for name in self.outputs_of(kind))

    def outputs_of(self, kind: str) -> tuple[str, ...]:
        if kind == ATTENTION:
            return ATTENTION, ATTENTION_HEADS
        return (f"cls_{kind}", f"dist_{kind}") if self.heads == BOTH else (kind,)

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (self.batch, *self.image_shape)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        size = self.card.image_size
        return (size, size, 3) if self.preprocess else (3, size, size)

    @property
    def dtype(self) -> type:
        return np.uint8 if self.preprocess else np.float32

    @property
    def seen(self) -> ModelCard:
        """The card for whoever prepares images: with ``preprocess`` they are not normalised."""
        return replace(self.card, mean=(0.0, 0.0, 0.0), std=_LEVELS) if self.preprocess else self.card

    def as_dict(self) -> dict[str, Any]:
        sides = ", ".join(str(side or "batch") for side in self.shape)
        meaning = "0 to 255, RGB" if self.preprocess else "RGB, (value / 255 - mean) / std"
        return {
            **{key: getattr(self.card, key) for key in _CARD},
            **({_TEMPERATURE: self.card.temperature} if self.card.temperature else {}),
            "class_names": class_names(self.card),
            "input": f"images: {np.dtype(self.dtype)} ({sides}), {meaning}",
            "outputs": self.outputs,
            "batch": self.batch or DYNAMIC,
            "heads": self.heads,
            "precision": self.precision,
            "preprocess": self.preprocess,
        }

    def as_texts(self) -> dict[str, str]:
        return {
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in self.as_dict().items()
        }

    @classmethod
    def of(cls, values: Mapping[str, Any], path: PathLike) -> Description:
        """From what `as_dict` or `as_texts` gave."""
        where = f"{path}: not what export.py writes"
        plain = {key: _plain(key, value, where) for key, value in typed.read_fields({}, values, where).items()}
        needed = [key for key in _FIELDS if key not in (_TEMPERATURE, "outputs")]
        read = typed.read_fields(_FIELDS, plain, where, needed=needed)
        card = ModelCard.of({key: read.get(key) for key in (*_CARD, _TEMPERATURE, "class_names")}, where)
        if card.class_names == class_names(replace(card, class_names=None)):
            card = replace(card, class_names=None)
        settings = {key: read[key] for key in ("heads", "precision", "preprocess")}
        described = cls(card, None if read["batch"] == DYNAMIC else read["batch"], **settings)
        asked = _kinds_of(read.get("outputs", described.outputs), where)
        return described if asked == described.kinds else replace(described, asked=asked)


def _kinds_of(outputs: tuple[str, ...], where: str) -> tuple[str, ...]:
    for name in outputs:
        if name not in _KIND_OF:
            raise UserError(f"{where}: outputs holds '{name}', allowed: {', '.join(_KIND_OF)}")
    return tuple(dict.fromkeys(_KIND_OF[name] for name in outputs))


def _plain(key: str, value: Any, where: str) -> Any:
    """The metadata of ONNX are texts; other values are stored as JSON."""
    as_it_is = key not in _FIELDS or key in _TEXTS or not isinstance(value, str) or value == DYNAMIC
    return value if as_it_is else typed.parse(value, f"{where}: {key}")
