"""Loads weights of any file into a model: used by the converter, `create_model` and ``--ckpt_path``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mindeit.errors import UserError
from mindeit.files import PathLike
from mindeit.layers import weight_init
from mindeit.models.registry import build, same_architecture, spec
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.adapt import (
    DISTILLATION,
    TABLE,
    State,
    with_channels,
    with_distillation,
    with_fresh_head,
    with_resized_table,
)
from mindeit.weights.card import ModelCard, card_for, check_against_card
from mindeit.weights.identify import candidates, identify, table_image_size
from mindeit.weights.integrity import refuse_not_finite
from mindeit.weights.names import join_counters, official_names, rename
from mindeit.weights.weight_file import WeightFile, open_weights

if TYPE_CHECKING:
    from mindspore import nn

_NO_CARD: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(ModelCard))


def load_model(
    path: PathLike,
    *,
    model: str | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    use_ema: bool = False,
    check: bool = True,
    **options: Any,
) -> tuple[nn.Cell, ModelCard]:
    """The model a file holds, filled with its weights, and its card. Arguments as for `load_weights`; ``options`` are
    those of `create_model` that shape the model."""
    fitted = _fit(open_weights(path, model, use_ema, check), model, num_classes, image_size, options)
    cell = fitted.filled(path)
    cell.card = fitted.card
    return cell, fitted.card


def load_to_train(
    path: PathLike,
    *,
    model: str | None = None,
    num_classes: int | None = None,
    class_names: tuple[str, ...] | None = None,
    image_size: int | None = None,
    use_ema: bool = False,
    check: bool = True,
    **rates: float,
) -> tuple[nn.Cell, ModelCard, list[str]]:
    """As `load_model`, and a line for each thing that is not as the file has it. ``image_size`` None: the size of the
    named ``model``, else the file's. A plain model's weights start a distilled one. ``class_names``: what the classes
    are to be; where the card names others, the head is a fresh one.
    """
    size = spec(model).image_size if model and image_size is None else image_size
    source = open_weights(path, model, use_ema, check)
    fitted = _fit(source, model, num_classes, size, rates, to_train=True, class_names=class_names)
    return fitted.filled(path), fitted.card, fitted.changes


def load_weights(
    path: PathLike,
    *,
    model: str | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    use_ema: bool = False,
    check: bool = True,
) -> tuple[State, ModelCard]:
    """Weights under this project's names, complete and in shape, and the card that says how to use them.

    Reads official ``.pth`` and ``.safetensors`` and this project's ``.ckpt`` and ``.safetensors``. What is None is
    taken from the file. ``num_classes`` other than the file's drops the head for a fresh one, ``image_size`` other than
    the file's resizes the position table; everything else has to fit, or one error lists all that does not.
    ``use_ema`` takes the averaged weights of a training checkpoint; ``check`` False a file that does not match its
    checksum and digest.
    """
    fitted = _fit(open_weights(path, model, use_ema, check), model, num_classes, image_size, {})
    refuse_not_finite(fitted.state, path)
    return fitted.state, fitted.card


def load_for_use(
    path: PathLike, *, use_ema: bool = False, check: bool = True, **asked: Any
) -> tuple[nn.Cell, ModelCard]:
    """As `load_model`, for weights that are used as they are: no fresh head, no contradiction to the card.

    ``asked`` holds fields of `ModelCard`; None leaves one to the file. They may repeat a card, not contradict it; an
    official file has none, so there they decide (another ``image_size`` resizes its position table).
    """
    asked = {name: value for name, value in asked.items() if value is not None}
    source = open_weights(path, asked.get("model"), use_ema, check)
    stated = source.card or ModelCard(**{**_NO_CARD, "num_classes": source.classes})
    check_against_card(stated, asked, path, "convert the checkpoint anew (convert_pt2ms.py)")
    fitted = _fit(source, asked.get("model"), None, asked.get("image_size"), {})
    return fitted.filled(path), fitted.card if source.card else dataclasses.replace(fitted.card, **asked)


def to_official(state: Mapping[str, np.ndarray], card: ModelCard) -> State:
    """The way back: official names, BatchNorm's counters included."""
    with weight_init.left_out():
        cell = build(card.model, num_classes=card.num_classes, image_size=card.image_size)
    names = official_names(cell)
    return join_counters({official: state[name] for name, official in names.items()}, card.counters)


@dataclass(frozen=True)
class _FittedModel:
    """A fresh model, the file's weights adapted to it, and the changes that this took."""

    cell: nn.Cell
    state: State
    card: ModelCard
    changes: list[str]

    def filled(self, path: PathLike) -> nn.Cell:
        checkpoints.load_strict(self.cell, self.state, path)
        return self.cell


def _fit(
    source: WeightFile,
    model: str | None,
    num_classes: int | None,
    image_size: int | None,
    options: Mapping[str, Any],
    *,
    to_train: bool = False,
    class_names: tuple[str, ...] | None = None,
) -> _FittedModel:
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size is {image_size}; allowed: 1 and more")
    name = _model_name(source, model, to_train)
    held = source.classes
    classes = num_classes if num_classes is not None else 1000 if held is None else held
    size = _image_size(source, name) if image_size is None else image_size
    others = source.card is not None and class_names is not None and source.card.class_names not in (None, class_names)
    fresh_head = others or num_classes not in (None, held)
    with nullcontext() if fresh_head and classes else weight_init.left_out():
        cell = build(name, num_classes=classes, image_size=size, **options)
    names = official_names(cell) if source.official else {p.name: p.name for p in cell.get_parameters()}
    fresh = {names[parameter.name]: parameter for parameter in cell.get_parameters()}
    state, changes = source.state, list[str]()
    if to_train and DISTILLATION in fresh and source.plain:
        state, changes = with_distillation(state)
    if fresh_head:
        state, more = with_fresh_head(state, fresh, held, classes)
        changes = changes + more
    if image_size is not None:
        state, more = with_resized_table(state, fresh, cell)
        changes = changes + more
    state = with_channels(state, fresh)
    _check(state, {key: tuple(parameter.shape) for key, parameter in fresh.items()}, source)
    state = rename(state, {official: ours for ours, official in names.items()})
    return _FittedModel(cell, state, _card(source, name, classes, size), changes)


def _model_name(source: WeightFile, asked: str | None, to_train: bool) -> str:
    if source.card is None:
        try:
            known = [row.name for row in candidates(source.shapes)]
            if asked is None:
                return identify(source.shapes)
        except UserError as error:
            raise UserError(f"{source.path}: {error}") from None
    else:
        held = spec(source.card.model)
        known = [held.name] if asked is None else [held.name, *same_architecture(held.name)]
    plain = same_architecture(asked, distilled=False) if asked and to_train else []
    if asked is not None and known and asked not in known and not set(plain) & set(known):
        raise UserError(f"{source.path} holds {' or '.join(known)}, not '{asked}' (--model)")
    return asked or known[0]


def _image_size(source: WeightFile, name: str) -> int:
    """The file's own resolution, unless it is plainly another model's: then the strict check says so."""
    if source.card is not None:
        return source.card.image_size if name == source.card.model else spec(name).image_size
    size = table_image_size(source.shapes) or _published_size(source.path, name)
    others = [row.image_size for row in candidates(source.shapes) if row.name != name]
    return spec(name).image_size if size is None or size in others else size


def _published_size(path: Path, name: str) -> int | None:
    """Convolutions alone leave no trace of their resolution; the authors' file name tells it."""
    return next((file.image_size for file in spec(name).files if file.file == path.name), None)


def _check(state: State, wanted: Mapping[str, tuple[int, ...]], source: WeightFile) -> None:
    given = {name: array.shape for name, array in state.items()}
    try:
        checkpoints.check_names(wanted, given, where=source.path)
    except UserError as error:
        hint, held, asked = "", table_image_size(given), table_image_size(wanted)
        if TABLE in given and TABLE in wanted and given[TABLE] != wanted[TABLE]:
            hint = "; image_size (--image_size) resizes the position table"
        elif TABLE not in wanted and held and asked and held != asked:
            hint = f"; they mix the patches of images of {held} and cannot be made to fit another size"
        raise UserError(f"{error}{hint}") from None


def _card(source: WeightFile, name: str, classes: int, size: int) -> ModelCard:
    if source.card is None:
        return card_for(spec(name), classes, size, counters=source.counters)
    names = source.card.class_names if classes == source.card.num_classes else None
    as_it_was = (classes, size) == (source.card.num_classes, source.card.image_size)
    return dataclasses.replace(
        source.card,
        model=name,
        num_classes=classes,
        image_size=size,
        class_names=names,
        temperature=source.card.temperature if as_it_was else None,
    )
