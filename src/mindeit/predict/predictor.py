"""From images to class names and scores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Callable, Union

import numpy as np
from PIL import Image

from mindeit.data.transforms import EvalTransform
from mindeit.errors import UserError, nearest
from mindeit.export.exported import Exported, is_exported, open_exported
from mindeit.export.metadata import ATTENTION, FEATURES
from mindeit.files import PathLike
from mindeit.models.registry import list_models
from mindeit.predict import inputs
from mindeit.predict.attention_maps import AttentionMaps
from mindeit.runtime import device
from mindeit.weights.card import ModelCard
from mindeit.weights.class_names import class_names
from mindeit.weights.hub import local_path
from mindeit.weights.integrity import check_finite

if TYPE_CHECKING:
    from mindspore import nn

    Model = Union[nn.Cell, Exported]

Run = Callable[[np.ndarray], np.ndarray]
BATCHES = (1, 4, 16)  # for which graphs are compiled; others are made of these, at least half of each filled


@dataclass(frozen=True)
class Prediction:
    """One guess: ``score`` is its softmax probability, by the predictor's temperature."""

    label: int
    name: str
    score: float


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def on_arrays(model: Model) -> Run:
    """Images (batch, 3, S, S) -> logits (batch, num_classes), as arrays; an exported file is such a function."""
    if isinstance(model, Exported):
        return model
    from mindeit.runtime import graph  # MindSpore, which an ONNX file does without

    run = graph.compiled(model.set_train(False))
    return lambda images: run(graph.to_device(images)).asnumpy().copy()  # else the memory is MindSpore's


class Predictor:
    """Class names and scores of images, in one line and at a compiled model's speed:

        predictor = mindeit.Predictor("deit.ckpt")              # any checkpoint or exported file the project reads
        predictor = mindeit.Predictor("deit_tiny_patch16_224")  # official weights, downloaded once
        predictor = mindeit.Predictor(model)                    # of mindeit.create_model
        best = predictor.predict("bird.jpg")[0]                 # best.label, best.name, best.score

    What else is needed (classes, normalisation, ...) is in the file. A file that was calibrated (validate.py
    --write_temperature) has a ``temperature`` too: scores are softmax(logits / temperature); None gives plain ones.
    Whatever MindSpore's mode is, the model runs as compiled graphs, for batches of 1, 4 and 16: the first use of each
    takes some seconds, and says so. Threads may share a predictor. An ONNX file needs no MindSpore.
    """

    def __init__(
        self, source: PathLike | Model, *, model: str | None = None, use_ema: bool = False, check: bool = True
    ) -> None:
        """``model``: the name of what ``source`` holds, if the file does not tell it; ``use_ema``: the averaged weights
        of a training checkpoint; ``check``: refuse a file that was changed."""
        with device.one_at_a_time:
            self._use(*_open(source, model, use_ema, check))

    @classmethod
    def of(cls, model: Model, card: ModelCard) -> Predictor:
        """A predictor around any model at hand; ``card`` says how its images are prepared."""
        predictor = cls.__new__(cls)
        predictor._use(model, card)
        return predictor

    def _use(self, model: Model, card: ModelCard) -> None:
        self.model, self.card, self.class_names = model, card, class_names(card)
        self.temperature = card.temperature
        self.transform = EvalTransform(card.image_size, card.crop_pct, card.mean, card.std, card.interpolation)
        self._logits = _in_exported(model) if isinstance(model, Exported) else _in_graphs(model, card.model)
        self._features: dict[str, Run] = {}

    def predict(self, images: inputs.Images, top_k: int = 5) -> list[Prediction] | list[list[Prediction]]:
        """The ``top_k`` likeliest classes of an image, best first; of a folder or a list of images, a list of these.

        An image is a path, a URL, bytes, a binary file, a Pillow image or a uint8 array (height, width, 3):

            for guess in predictor.predict("bird.jpg", top_k=3):
                print(guess.name, guess.score)
            for guesses in predictor.predict(["bird.jpg", "https://example.com/cat.png", frame]):
                print(guesses[0].name)
        """
        self._check_classes()
        given, several = inputs.listed(images)
        found = [self.best(logits, top_k) for logits in self._results(given, self.logits)]
        return found if several else found[0]

    def features(self, images: inputs.Images) -> np.ndarray:
        """What the model's head classifies, to compare images or to learn from: (dim,) of an image, (images, dim) of a
        folder or a list. Images as for `predict`:

            one, other = predictor.features(["bird.jpg", "other.jpg"])
            likeness = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
        """
        given, several = inputs.listed(images)
        found = np.array(list(self._results(given, self.pooled)))
        return found if several else found[0]

    def pixels(self, image: inputs.One) -> np.ndarray:
        """The image as the model sees it: (3, S, S), normalised."""
        return self.prepare(inputs.read(image))

    def prepare(self, image: Image.Image) -> np.ndarray:
        """An RGB image -> (3, S, S)."""
        return self.transform(image)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """(batch, 3, S, S) -> (batch, num_classes)."""
        return check_finite(self._logits(images), self._where())

    def pooled(self, images: np.ndarray, pool: str = "token") -> np.ndarray:
        """(batch, 3, S, S) -> what the head classifies, or with ``pool`` "mean" the mean of the patches after the last
        norm: (batch, dim)."""
        if pool not in self._features:
            self._features[pool] = self._feature_graph(pool)
        return check_finite(self._features[pool](images), self._where())

    def best(self, logits: np.ndarray, top_k: int) -> list[Prediction]:
        self._check_classes()
        logits = logits.astype(np.float64)
        scores, order = softmax(logits / (self.temperature or 1.0)), np.argsort(-logits, kind="stable")[:top_k]
        return [Prediction(int(label), self.class_names[label], float(scores[label])) for label in order]

    @property
    def shows_attention(self) -> bool:
        return self.model.gives(ATTENTION) if isinstance(self.model, Exported) else hasattr(self.model, "attentions")

    def check_attention(self) -> None:
        if isinstance(self.model, Exported):
            self.model.check_gives(ATTENTION, "attention is shown by a file of export.py --outputs logits,attention")
        elif not self.shows_attention:
            raise UserError(f"{self.card.model} has no attention to show")

    def attention_maps(self, images: np.ndarray, labels: Sequence[int]) -> list[AttentionMaps]:
        """(batch, 3, S, S) -> what each image's class token looked at; ``labels``: which class, where each has one."""
        self.check_attention()
        if isinstance(self.model, Exported):
            return [AttentionMaps(*maps) for maps in zip(*self.model.outputs(images, kind=ATTENTION))]
        blocks, extra, per_class = self.attentions_of(images), self.model.extra_tokens, self.model.token_per_class
        return [
            AttentionMaps.of([block[place] for block in blocks], extra, label if per_class else 0)
            for place, label in enumerate(labels)
        ]

    def attentions(self, pixels: np.ndarray) -> list[np.ndarray]:
        """(3, S, S) -> each block's weights, (heads, tokens, tokens)."""
        return [block[0] for block in self.attentions_of(pixels[None])]

    def attentions_of(self, images: np.ndarray) -> list[np.ndarray]:
        """(batch, 3, S, S) -> each block's weights, (batch, heads, tokens, tokens)."""
        self.check_attention()
        if isinstance(self.model, Exported):
            raise UserError(f"{self.model.path} gives attention as maps, not of each block; a checkpoint gives those")
        from mindeit.runtime import graph  # MindSpore, which an ONNX file does without

        with device.one_at_a_time, device.operator_by_operator():  # a compiled graph keeps its inner values to itself
            return [block.asnumpy() for block in self.model.attentions(graph.to_device(images))]

    def _results(self, images: list[inputs.One], run: Run) -> Iterator[np.ndarray]:
        """The result of each image; as many run together as the largest batch holds."""
        pixels = map(self.pixels, images)
        while part := list(islice(pixels, BATCHES[-1])):
            yield from run(np.stack(part))

    def _feature_graph(self, pool: str) -> Run:
        mean = pool == "mean"
        if isinstance(self.model, Exported):
            self.model.check_gives(FEATURES, "export features with --num_classes 0")
            if mean:
                raise UserError(f"{self.model.path} gives its own features only; pool 'mean' needs a checkpoint")
            return partial(self.model.common, kind=FEATURES) if self.card.num_classes else self._logits
        if mean and not hasattr(self.model, "tokens_in_blocks"):
            raise UserError(f"{self.card.model} has no patches; allowed: pool 'token', what its head classifies")
        if self.card.num_classes and not hasattr(self.model, "forward_head"):
            raise UserError(f"{self.card.model} has no forward_head to take features from")
        if not mean and getattr(self.model, "token_per_class", False):
            raise UserError(f"{self.card.model} has a token for each class, no common one; allowed: pool 'mean'")
        if not (self.card.num_classes or mean):
            return self._logits
        from mindeit.export.wrapper import Features, PatchMean  # MindSpore, which an ONNX file does without

        return _in_graphs((PatchMean if mean else Features)(self.model), f"{self.card.model}'s features")

    def _check_classes(self) -> None:
        if not self.card.num_classes:
            if isinstance(self.model, Exported):
                self.model.check_gives(FEATURES, "classes are named by a file that gives logits")
            raise UserError(f"{self._where()} gives features, no classes; ask for features(images)")

    def _where(self) -> str:
        return str(self.model.path) if isinstance(self.model, Exported) else self.card.model


def _open(source: PathLike | Model, name: str | None, use_ema: bool, check: bool) -> tuple[Model, ModelCard]:
    if isinstance(source, (str, os.PathLike)):
        return _open_file(_weights(os.fspath(source)), name, use_ema, check)
    card = getattr(source, "card", None)  # which `create_model` leaves on its models
    if not isinstance(card, ModelCard):
        raise UserError(
            f"{type(source).__name__} does not say how its images are prepared; take a model of "
            "create_model, or Predictor.of(model, card)"
        )
    if name or use_ema:
        raise UserError("model and use_ema are for files; a model at hand is used as it is")
    if isinstance(source, Exported):
        return source, card
    if source.in_channels != 3:
        raise UserError(f"in_channels is {source.in_channels}; allowed: 3, for images are RGB")
    if source.num_classes != card.num_classes:  # a new head, since the card was written
        card = replace(card, num_classes=source.num_classes, class_names=None)
    return source, card


def _weights(source: str) -> str:
    """A file or folder, or the official weights of a model's name."""
    source = local_path(source)
    if os.path.exists(source) or os.path.splitext(source)[1] or os.sep in source:
        return source
    if source not in list_models():
        raise UserError(f"{source} is neither a file nor a model's name{nearest(source, list_models())}")
    from mindeit.weights.pretrained import fetch_pretrained  # MindSpore, which an ONNX file does without

    return str(fetch_pretrained(source))


def _open_file(path: str, name: str | None, use_ema: bool, check: bool) -> tuple[Model, ModelCard]:
    if is_exported(path):
        file = open_exported(path, {"model": name} if name else {}, use_ema=use_ema, check=check)
        return file, file.card
    from mindeit.weights.load import load_model  # MindSpore, which an ONNX file does without

    return load_model(path, model=name, use_ema=use_ema, check=check)


def _in_graphs(model: nn.Cell, title: str) -> Run:
    from mindeit.runtime import graph  # MindSpore, which an ONNX file does without

    return partial(_in_batches, graph.Inference(model, title))


def _in_exported(file: Exported) -> Run:
    return partial(_in_batches, file) if file.compiles_each_batch else file


def _in_batches(run: Run, images: np.ndarray) -> np.ndarray:
    """Run on any number of images, in batches of few sizes."""
    parts, done = [], 0
    while done < len(images):
        size = max(size for size in BATCHES if size <= 2 * (len(images) - done))
        part = images[done : done + size]
        empty = np.zeros((size - len(part), *part.shape[1:]), part.dtype)
        parts.append(run(np.concatenate([part, empty]))[: len(part)])
        done += size
    return np.concatenate(parts)
