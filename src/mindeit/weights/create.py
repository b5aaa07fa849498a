"""`create_model`: a model by its name, fresh or with weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mindeit.errors import UserError
from mindeit.files import PathLike
from mindeit.models.registry import build, spec, with_stem
from mindeit.weights.card import card_for
from mindeit.weights.load import load_model
from mindeit.weights.pretrained import fetch_pretrained

if TYPE_CHECKING:
    from mindspore import nn

# What timm and MindCV call these arguments of `create_model`.
_ALIASES = {"img_size": "image_size", "in_chans": "in_channels", "checkpoint_path": "checkpoint"}


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    drop_path_rate: float = 0.0,
    drop_rate: float = 0.0,
    in_channels: int = 3,
    checkpoint: PathLike | None = None,
    pretrained: bool = False,
    stem: str | None = None,
    **shape: Any,
) -> nn.Cell:
    """A model by its official name, fresh or with the weights of a file of any kind that `load_weights` reads:

        model = mindeit.create_model("deit_tiny_patch16_224", checkpoint="deit_tiny.ckpt")

    ``num_classes`` None is the checkpoint's, or 1000; another number than the checkpoint's starts a new head, 0 leaves
    features. ``image_size`` None is the checkpoint's, or the model's own; another one resizes the position table.
    ``in_channels`` other than 3 sums the weights of colours (1) or repeats them. ``pretrained`` downloads the official
    weights once. ``stem`` "hmlp" is that of 3Things, for DeiT III at patch 16. ``shape`` replaces sizes of the model's
    table (``depth``, ...). ``img_size``, ``in_chans`` and ``checkpoint_path`` are timm's words for three of these.
    ``model.card`` tells how images are prepared.

    MindSpore runs a model operator by operator unless told otherwise, which on a CPU takes 25 to 50 times as long.
    `mindeit.Predictor` compiles it by itself; whoever calls it compiles it first:

        classify = mindspore.jit(model.set_train(False))  # compiles when it is called with a new shape
        logits = classify(images)                         # (batch, 3, 224, 224) -> (batch, 1000)
    """
    renamed = {_ALIASES[key]: shape.pop(key) for key in tuple(shape) if key in _ALIASES}
    image_size, checkpoint = renamed.get("image_size", image_size), renamed.get("checkpoint", checkpoint)
    in_channels = renamed.get("in_channels", in_channels)
    name = with_stem(name, stem) if stem else name
    options = {"drop_path_rate": drop_path_rate, "drop_rate": drop_rate, "in_channels": in_channels, **shape}
    if pretrained and checkpoint is not None:
        raise UserError(f"pretrained and checkpoint ({checkpoint}) exclude each other")
    if pretrained:
        checkpoint = fetch_pretrained(name, image_size)
    if checkpoint is None:
        num_classes = 1000 if num_classes is None else num_classes
        model = build(name, num_classes=num_classes, image_size=image_size, **options)
        model.card = card_for(spec(name), num_classes, image_size)
        return model
    return load_model(checkpoint, model=name, num_classes=num_classes, image_size=image_size, **options)[0]
