"""From picture files to class names and scores."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Optional, Union

import numpy as np
from PIL import Image

from mindeit.checkpoint import ModelCard
from mindeit.data.images import decode_rgb
from mindeit.data.transforms import EvalTransform
from mindeit.deploy.class_names import class_names
from mindeit.deploy.exported import Exported, is_exported, open_exported
from mindeit.errors import UserError
from mindeit.files import PathLike
from mindeit.integrity import check_finite
from mindeit.runtime import device

if TYPE_CHECKING:
    from mindspore import nn

    Model = Union[nn.Cell, Exported]


@dataclass(frozen=True)
class Prediction:
    """One guess: ``score`` is its softmax probability."""

    label: int
    name: str
    score: float


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def on_arrays(model: Model) -> Callable[[np.ndarray], np.ndarray]:
    """Images (batch, 3, S, S) -> logits (batch, num_classes), as arrays; an exported file is such a function."""
    if isinstance(model, Exported):
        return model
    from mindeit.runtime.graph import compiled, to_device

    graph = compiled(model.set_train(False))
    return lambda images: graph(to_device(images)).asnumpy().copy()  # else the memory is MindSpore's


class Predictor:
    """``Predictor("deit.ckpt").predict("bird.jpg")`` -> the five likeliest classes, best first.

    Takes every kind of checkpoint the project reads, and exported files; what else is needed stands in the file. An
    ONNX file needs no MindSpore.
    """

    def __init__(self, checkpoint: PathLike, *, model: Optional[str] = None, use_ema: bool = False) -> None:
        if is_exported(checkpoint):
            file = open_exported(checkpoint, {"model": model} if model else {}, use_ema=use_ema)
            self._use(file, file.card)
        else:
            from mindeit.convert.load import load_model

            self._use(*load_model(checkpoint, model=model, use_ema=use_ema))

    @classmethod
    def of(cls, model: Model, card: ModelCard, interpolation: str = "bicubic") -> Predictor:
        """A predictor around a model at hand."""
        predictor = cls.__new__(cls)
        predictor._use(model, card, interpolation)
        return predictor

    def _use(self, model: Model, card: ModelCard, interpolation: str = "bicubic") -> None:
        self.model, self.card = model, card
        self._logits, self.class_names = on_arrays(model), class_names(card)
        self._transform = EvalTransform(card.image_size, card.crop_pct, card.mean, card.std, interpolation)

    def predict(self, picture: PathLike, top_k: int = 5) -> list[Prediction]:
        return self.best(self.logits(self.pixels(picture)[None])[0], top_k)

    def pixels(self, picture: PathLike) -> np.ndarray:
        """The picture as the model sees it: (3, S, S), normalised."""
        return self.prepare(decode_rgb(str(picture), str(picture)))

    def prepare(self, picture: Image.Image) -> np.ndarray:
        """An RGB picture -> (3, S, S)."""
        return self._transform(picture)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """(batch, 3, S, S) -> (batch, num_classes)."""
        return check_finite(self._logits(images), self.card.model)

    def best(self, logits: np.ndarray, top_k: int) -> list[Prediction]:
        scores = softmax(logits.astype(np.float64))
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [Prediction(int(label), self.class_names[label], float(scores[label])) for label in order]

    def check_attention(self) -> None:
        if isinstance(self.model, Exported):
            raise UserError(f"{self.model.path} gives logits only; attention is shown by the checkpoint it was made of")
        if not hasattr(self.model, "attentions"):
            raise UserError(f"{self.card.model} has no attention to show")

    def attentions(self, pixels: np.ndarray) -> list[np.ndarray]:
        """(3, S, S) -> each block's weights, (heads, tokens, tokens)."""
        self.check_attention()
        from mindspore import Tensor

        with device.operator_by_operator():  # a compiled graph keeps its inner values to itself
            return [block.asnumpy()[0] for block in self.model.attentions(Tensor(pixels[None]))]
