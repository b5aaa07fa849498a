"""What an exported file says of itself: in an ONNX file's metadata, in a JSON file beside a MindIR file."""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

import numpy as np

from mindeit.checkpoint import ModelCard
from mindeit.deploy.class_names import class_names
from mindeit.errors import UserError
from mindeit.files import PathLike

DYNAMIC = "dynamic"
MEAN, BOTH = "mean", "both"
LEVELS = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}  # a normalisation that leaves 0 to 255
_CARD = ("model", "num_classes", "image_size", "crop_pct", "mean", "std")


@dataclass(frozen=True)
class Description:
    """``batch`` None: any. ``heads``: of a distilled model, their mean or both; ``preprocess``: uint8 pictures in."""

    card: ModelCard
    batch: Optional[int] = None
    heads: str = MEAN
    precision: str = "fp32"
    preprocess: bool = False
    interpolation: str = "bicubic"

    @property
    def outputs(self) -> tuple[str, ...]:
        kind = "logits" if self.card.num_classes else "features"
        return (f"cls_{kind}", f"dist_{kind}") if self.heads == BOTH else (kind,)

    @property
    def shape(self) -> tuple[Optional[int], ...]:
        size = self.card.image_size
        return (self.batch, size, size, 3) if self.preprocess else (self.batch, 3, size, size)

    @property
    def dtype(self) -> type:
        return np.uint8 if self.preprocess else np.float32

    @property
    def seen(self) -> ModelCard:
        """The card that whoever prepares pictures goes by: with ``preprocess`` they are not normalised."""
        return replace(self.card, **LEVELS) if self.preprocess else self.card

    def as_dict(self) -> dict[str, Any]:
        sides = ", ".join(str(side or "batch") for side in self.shape)
        meaning = "0 to 255, RGB" if self.preprocess else "RGB, (value / 255 - mean) / std"
        return {
            **{key: getattr(self.card, key) for key in _CARD},
            "class_names": class_names(self.card),
            "interpolation": self.interpolation,
            "input": f"images: {np.dtype(self.dtype)} ({sides}), {meaning}",
            "outputs": self.outputs,
            "batch": self.batch or DYNAMIC,
            "heads": self.heads,
            "precision": self.precision,
            "preprocess": self.preprocess,
        }

    def as_texts(self) -> dict[str, str]:
        return {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                for key, value in self.as_dict().items()}

    @classmethod
    def of(cls, values: Mapping[str, Any], path: PathLike) -> Description:
        """From what `as_dict` or `as_texts` gave."""
        try:
            read = {key: _plain(value) for key, value in values.items()}
            card = ModelCard(**{key: _tuple(read[key]) for key in _CARD})
            names = tuple(read["class_names"])
            card = replace(card, class_names=None if names == class_names(card) else names)
            settings = {key: read[key] for key in ("heads", "precision", "preprocess", "interpolation")}
            return cls(card, None if read["batch"] == DYNAMIC else int(read["batch"]), **settings)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: does not say what export.py writes into its files ({error!r})") from None


def _plain(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value  # text


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
