"""The model in training, and the weights that it starts from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mindspore import nn

from mindeit.config import Config
from mindeit.data import Source
from mindeit.errors import UserError
from mindeit.factory.trained_model import evaluation_options
from mindeit.layers.recompute import recompute_blocks
from mindeit.models.registry import build, spec
from mindeit.weights.card import ModelCard, card_for
from mindeit.weights.load import load_to_train
from mindeit.weights.source import weights_file


def build_student(config: Config, source: Source) -> tuple[nn.Cell, ModelCard, list[str]]:
    """A fresh model or one from a file, and what differs from the file: a new head, a resized position table.

    The image size is that of ``image_size``, else of the named model, else of the file.
    """
    model, data = config.model, config.data
    rates: dict[str, Any] = {"drop_path_rate": model.drop_path_rate, "drop_rate": model.drop_rate}
    classes, names = source.num_classes, source.class_names if source.named else None
    path = starting_file(config)
    changes: list[str] = []
    if path:
        student, card, changes = load_to_train(
            path,
            model=model.model,
            num_classes=classes,
            class_names=names,
            image_size=data.image_size,
            use_ema=model.use_ema,
            check=not model.no_check,
            **rates,
        )
    elif model.model:
        student = build(model.model, num_classes=classes, image_size=data.image_size, **rates)
        card = card_for(spec(model.model), classes, data.image_size)
    else:
        raise UserError("no model: give --config FILE, --model NAME or --ckpt_path FILE")
    if config.train.recompute:
        recompute_blocks(student)
    own = {key: value for key, value in evaluation_options(config).items() if value is not None}
    return student, replace(card, class_names=names or card.class_names, **own), changes


def starting_file(config: Config) -> str | None:
    """The weights that the student starts from; None: fresh ones."""
    model = config.model
    return weights_file(
        model.ckpt_path, pretrained=model.pretrained, model=model.model, image_size=config.data.image_size
    )
