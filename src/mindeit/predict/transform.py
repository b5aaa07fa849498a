"""The image transform that belongs to a model's file."""

from __future__ import annotations

from mindeit.data.transforms import EvalTransform
from mindeit.export.exported import is_exported, open_exported
from mindeit.files import PathLike
from mindeit.weights.card import ModelCard
from mindeit.weights.hub import local_path


def transform_for(checkpoint: PathLike) -> EvalTransform:
    """From an RGB ``PIL.Image`` to the array (3, S, S), float32, that the model of ``checkpoint`` takes:

        pixels = mindeit.transform_for("deit_tiny.ckpt")(Image.open("bird.jpg").convert("RGB"))

    Resized, cropped and normalised as in evaluation; checkpoints of any kind and exported files.
    """
    card = _card(checkpoint)
    return EvalTransform(card.image_size, card.crop_pct, card.mean, card.std, card.interpolation)


def _card(checkpoint: PathLike) -> ModelCard:
    checkpoint = local_path(checkpoint)
    if is_exported(checkpoint):
        return open_exported(checkpoint, {}).card
    from mindeit.weights.load import load_weights  # MindSpore, which an ONNX file does without

    return load_weights(checkpoint)[1]
