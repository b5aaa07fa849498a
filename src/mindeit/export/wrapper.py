"""The cells around a model in an exported graph: its inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindeit.export.attention_output import AttentionOutput
from mindeit.export.metadata import ATTENTION, BOTH, FEATURES, Description
from mindeit.kernels import precision
from mindeit.kernels.export_forms import make_portable


class Normalise(nn.Cell):
    """uint8 images (batch, S, S, 3), as decoders give them -> float32 (batch, 3, S, S), the steps of `Normalize`."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean, self.std = Tensor(np.array(mean, np.float32)), Tensor(np.array(std, np.float32))

    def construct(self, images: Tensor) -> Tensor:
        values = (images.astype(ms.float32) / 255 - self.mean) / self.std
        return ops.transpose(values, (0, 3, 1, 2))


class BothHeads(nn.Cell):
    """A distilled model that gives ``(cls_logits, dist_logits)``."""

    def __init__(self, model: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.both_heads(images)


class Outputs(nn.Cell):
    """A model that gives several kinds of results, in the order of ``kinds``; ``both``: of its two heads."""

    def __init__(self, model: nn.Cell, kinds: Sequence[str], both: bool) -> None:
        super().__init__(auto_prefix=False)
        self.model, self.kinds, self.both = model, tuple(kinds), both
        self.attention = AttentionOutput(model) if ATTENTION in kinds else nn.Identity()

    def construct(self, images: Tensor) -> tuple[Tensor, ...]:
        tokens = self.model.forward_features(images)
        results: tuple[Tensor, ...] = ()
        for kind in self.kinds:
            if kind == ATTENTION:
                results = results + self.attention(self.model.attentions(images))
            elif self.both:
                results = results + self.pair(tokens, kind)
            else:
                results = results + (self.model.forward_head(tokens, kind == FEATURES),)
        return results

    def pair(self, tokens: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        return (tokens[:, 0], tokens[:, 1]) if kind == FEATURES else self.model.heads_of(tokens)


class Features(nn.Cell):
    """A model that gives what its head classifies."""

    def __init__(self, model: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, images: Tensor) -> Tensor:
        return self.model.forward_head(self.model.forward_features(images), pre_logits=True).astype(ms.float32)


class PatchMean(nn.Cell):
    """A model that gives the mean of its patches after the last norm."""

    def __init__(self, model: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.model = model
        self.first = model.num_classes if model.token_per_class else model.extra_tokens

    def construct(self, images: Tensor) -> Tensor:
        return ops.mean(self.model.forward_features(images)[:, self.first :].astype(ms.float32), 1)


class Interface(nn.Cell):
    """The model, with its input prepared and its results in float32."""

    def __init__(self, prepare: nn.Cell, model: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.prepare, self.model = prepare, model

    def construct(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        results = self.model(self.prepare(images))
        if isinstance(results, tuple):
            return tuple([result.astype(ms.float32) for result in results])
        return results.astype(ms.float32)


def results_of(model: nn.Cell, description: Description) -> nn.Cell:
    """The cell whose results the file gives."""
    both = description.heads == BOTH
    if description.asked:
        return Outputs(model, description.asked, both)
    return BothHeads(model) if both else model


def interface(model: nn.Cell, description: Description) -> nn.Cell:
    """The cell to export. Changes ``model``: its kernels become portable, with fp16 its parameters float16."""
    make_portable(model)
    inner, card = results_of(model, description), description.card
    if description.precision == "fp16":
        precision.apply(inner, "O2")
        precision.store_halves(inner)
    prepare = Normalise(card.mean, card.std) if description.preprocess else nn.Identity()
    return Interface(prepare, inner).set_train(False)
