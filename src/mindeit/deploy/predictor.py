"""From picture files to class names and scores."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np
from mindspore import Tensor, nn

from mindeit.checkpoint import ModelCard
from mindeit.convert.load import load_model
from mindeit.data.images import decode_rgb
from mindeit.data.transforms import EvalTransform
from mindeit.deploy.class_names import class_names
from mindeit.errors import UserError
from mindeit.files import PathLike
from mindeit.runtime import device


@dataclass(frozen=True)
class Prediction:
    """One guess: ``score`` is its softmax probability."""

    label: int
    name: str
    score: float


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


class Predictor:
    """``Predictor("deit.ckpt").predict("bird.jpg")`` -> the five likeliest classes, best first.

    Takes every kind of checkpoint the project reads; what else is needed stands in the checkpoint's card.
    """

    def __init__(self, checkpoint: PathLike, *, model: Optional[str] = None, use_ema: bool = False) -> None:
        self._use(*load_model(checkpoint, model=model, use_ema=use_ema))

    @classmethod
    def of(cls, model: nn.Cell, card: ModelCard, interpolation: str = "bicubic") -> Predictor:
        """A predictor around a model at hand."""
        predictor = cls.__new__(cls)
        predictor._use(model, card, interpolation)
        return predictor

    def _use(self, model: nn.Cell, card: ModelCard, interpolation: str = "bicubic") -> None:
        self.model, self.card = model.set_train(False), card
        self.class_names = class_names(card)
        self._transform = EvalTransform(card.image_size, card.crop_pct, card.mean, card.std, interpolation)

    def predict(self, picture: PathLike, top_k: int = 5) -> list[Prediction]:
        return self.best(self.logits(self.pixels(picture)[None])[0], top_k)

    def pixels(self, picture: PathLike) -> np.ndarray:
        """The picture as the model sees it: (3, S, S), normalised."""
        return self._transform(decode_rgb(str(picture), str(picture)))

    def logits(self, images: np.ndarray) -> np.ndarray:
        """(batch, 3, S, S) -> (batch, num_classes)."""
        return self.model(Tensor(images)).asnumpy()

    def best(self, logits: np.ndarray, top_k: int) -> list[Prediction]:
        scores = softmax(logits.astype(np.float64))
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [Prediction(int(label), self.class_names[label], float(scores[label])) for label in order]

    def attentions(self, pixels: np.ndarray) -> list[np.ndarray]:
        """(3, S, S) -> each block's weights, (heads, tokens, tokens)."""
        if not hasattr(self.model, "attentions"):
            raise UserError(f"{self.card.model} has no attention to show")
        with device.operator_by_operator():  # a compiled graph keeps its inner values to itself
            return [block.asnumpy()[0] for block in self.model.attentions(Tensor(pixels[None]))]
