"""Weights of any file, made to fit a model: the one way for the converter, ``create_model`` and ``--ckpt_path``."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mindeit import checkpoint as checkpoints
from mindeit.checkpoint import ModelCard
from mindeit.convert import torch_files
from mindeit.convert.names import join_counters, official_names, rename, split_counters
from mindeit.convert.pos_embed import resize_pos_embed
from mindeit.convert.recognise import candidates, head_classes, recognise, table_image_size
from mindeit.errors import UserError
from mindeit.files import PathLike, existing_file
from mindeit.integrity import refuse_not_finite
from mindeit.models.registry import build, spec

if TYPE_CHECKING:
    from mindspore import Parameter, nn

State = dict[str, np.ndarray]
_HEADS = ("head", "head_dist")
_TABLE, _CLASSES = "pos_embed", "cls_token"
_NO_CARD = dict.fromkeys(field.name for field in dataclasses.fields(ModelCard))


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
    **shape: Any,
) -> nn.Cell:
    """A model by its official name, fresh or with the weights of a file of any kind that `load_weights` reads::

        model = mindeit.create_model("deit_tiny_patch16_224", checkpoint="deit_tiny.ckpt")

    ``num_classes`` None is the checkpoint's, or 1000; another number than the checkpoint's starts a new head, 0 leaves
    features. ``image_size`` None is the checkpoint's, or the model's own; another one resizes the position table.
    ``in_channels`` other than 3 sums the weights of colours (1) or repeats them. ``pretrained`` downloads the official
    weights once. ``shape`` replaces sizes of the model's table (``depth``, ``embed_dim``, ``num_heads``, ...).
    ``img_size``, ``in_chans`` and ``checkpoint_path`` are timm's words for three of these.
    ``model.card`` tells how images are prepared.

    MindSpore runs a model operator by operator unless told otherwise, which on a CPU takes 25 to 50 times as long.
    `mindeit.Predictor` compiles it by itself; whoever calls it compiles it first::

        classify = mindspore.jit(model.set_train(False))  # compiles when it is called with a new shape
        logits = classify(images)                         # (batch, 3, 224, 224) -> (batch, 1000)
    """
    renamed = {_ALIASES[key]: shape.pop(key) for key in tuple(shape) if key in _ALIASES}
    if renamed:
        given = {"image_size": image_size, "in_channels": in_channels, "checkpoint": checkpoint}
        return create_model(
            name, num_classes=num_classes, drop_path_rate=drop_path_rate, drop_rate=drop_rate, pretrained=pretrained,
            **{**given, **renamed}, **shape,
        )
    options = {"drop_path_rate": drop_path_rate, "drop_rate": drop_rate, "in_channels": in_channels, **shape}
    if pretrained and checkpoint is not None:
        raise UserError(f"pretrained and checkpoint ({checkpoint}) exclude each other")
    if pretrained:
        from mindeit.convert.pretrained import fetch_pretrained

        checkpoint = fetch_pretrained(name, image_size)
    if checkpoint is None:
        num_classes = 1000 if num_classes is None else num_classes
        model = build(name, num_classes=num_classes, image_size=image_size, **options)
        model.card = checkpoints.card_for(spec(name), num_classes, image_size)
        return model
    return load_model(checkpoint, model=name, num_classes=num_classes, image_size=image_size, **options)[0]


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
    cell, state, card = _fit(_open(path, model, use_ema, check), model, num_classes, image_size, options)
    checkpoints.load_strict(cell, state, path)
    cell.card = card
    return cell, card


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
    told from the file. ``num_classes`` other than the file's drops the head for a fresh one, ``image_size`` other than
    the file's resizes the position table; everything else has to fit, or one error lists all that does not.
    ``use_ema`` takes the averaged weights of a training checkpoint; ``check`` False a file that does not match its
    checksum and digest.
    """
    _, state, card = _fit(_open(path, model, use_ema, check), model, num_classes, image_size, {})
    refuse_not_finite(state, path)
    return state, card


def load_for_use(
    path: PathLike, *, use_ema: bool = False, check: bool = True, **asked: Any
) -> tuple[nn.Cell, ModelCard]:
    """As `load_model`, for weights that are used as they are: no fresh head, and a card is believed.

    ``asked`` holds fields of `ModelCard`; None leaves one to the file. They may repeat a card, not contradict it; an
    official file has none, so there they decide (another ``image_size`` resizes its position table).
    """
    asked = {name: value for name, value in asked.items() if value is not None}
    source = _open(path, asked.get("model"), use_ema, check)
    believed = source.card or ModelCard(**{**_NO_CARD, "num_classes": _classes(source)})
    checkpoints.believe(believed, asked, path, "convert the checkpoint anew (convert_pt2ms.py)")
    cell, state, card = _fit(source, asked.get("model"), None, asked.get("image_size"), {})
    checkpoints.load_strict(cell, state, path)
    return cell, card if source.card else dataclasses.replace(card, **asked)


def to_official(state: Mapping[str, np.ndarray], card: ModelCard) -> State:
    """The way back: official names, BatchNorm's counters included."""
    cell = build(card.model, num_classes=card.num_classes, image_size=card.image_size)
    names = official_names(cell)
    return join_counters({official: state[name] for name, official in names.items()}, card.counters)


@dataclass(frozen=True)
class _Source:
    """A file's content: ``official`` tells whose names it uses."""

    path: Path
    state: State
    card: ModelCard | None
    official: bool
    counters: Mapping[str, int]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self.state.items()}


def _open(path: PathLike, model: str | None, use_ema: bool, check: bool) -> _Source:
    if model is not None:
        spec(model)  # a misspelt name is told before a large file is read
    return _read(Path(path), use_ema, check)


def _read(path: Path, use_ema: bool, check: bool) -> _Source:
    kinds = (*torch_files.TORCH_SUFFIXES, *checkpoints.SUFFIXES)
    if existing_file(path).suffix not in kinds:
        raise UserError(f"{path}: unknown kind of file '{path.suffix}'; allowed: {', '.join(kinds)}")
    with_card = path.suffix == ".safetensors" and torch_files.has_metadata(path, checkpoints.CARD_KEY)
    if path.suffix == ".ckpt" or with_card:
        state, card = checkpoints.read(path, use_ema=use_ema, check=check)
        return _Source(path, state, card, official=False, counters=card.counters if card else {})
    state, counters = split_counters(torch_files.read_official(path, use_ema=use_ema))
    return _Source(path, state, None, official=True, counters=counters)


def _fit(
    source: _Source,
    model: str | None,
    num_classes: int | None,
    image_size: int | None,
    options: Mapping[str, Any],
) -> tuple[nn.Cell, State, ModelCard]:
    """(a fresh model, the file's weights made to fit it, card)."""
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size is {image_size}; allowed: 1 and more")
    name = _model_name(source, model)
    held = _classes(source)
    classes = num_classes if num_classes is not None else 1000 if held is None else held
    size = _image_size(source, name) if image_size is None else image_size
    cell = build(name, num_classes=classes, image_size=size, **options)
    names = official_names(cell) if source.official else {p.name: p.name for p in cell.get_parameters()}
    fresh = {names[parameter.name]: parameter for parameter in cell.get_parameters()}
    state = source.state if num_classes in (None, held) else _with_fresh_head(source.state, fresh)
    if image_size is not None:
        state = _with_resized_table(state, fresh, cell)
    state = _with_channels(state, fresh)
    _check(state, {key: tuple(parameter.shape) for key, parameter in fresh.items()}, source.path)
    state = rename(state, {official: ours for ours, official in names.items()})
    return cell, state, _card(source, name, classes, size)


def _model_name(source: _Source, asked: str | None) -> str:
    if source.card is None:
        try:
            known = [row.name for row in candidates(source.shapes)]
            if asked is None:
                return recognise(source.shapes)
        except UserError as error:
            raise UserError(f"{source.path}: {error}") from None
    else:
        held = spec(source.card.model)
        known = [held.name] if asked is None else _same_architecture(held.name)
    if asked is not None and known and asked not in known:
        raise UserError(f"{source.path} holds {' or '.join(known)}, not '{asked}' (--model)")
    return asked or known[0]


def _same_architecture(name: str) -> list[str]:
    from mindeit.models.catalogue import CATALOGUE

    row = spec(name)
    return [name, *(r.name for r in CATALOGUE.values()
                    if r.name != name and r.family == row.family and r.variant == row.variant)]


def _classes(source: _Source) -> int | None:
    """None: the file holds no head, which is an error unless ``num_classes`` asks for a fresh one or for none."""
    return source.card.num_classes if source.card else head_classes(source.shapes)


def _image_size(source: _Source, name: str) -> int:
    """The file's own resolution, unless it is plainly another model's: then the strict check says so."""
    if source.card is not None:
        return source.card.image_size if name == source.card.model else spec(name).image_size
    size = table_image_size(source.shapes)
    others = [row.image_size for row in candidates(source.shapes) if row.name != name]
    return spec(name).image_size if size is None or size in others else size


def _with_fresh_head(state: State, fresh: Mapping[str, Parameter]) -> State:
    """Class tokens are part of the head where each class has one."""
    anew = {name for name in (*state, *fresh) if name.split(".")[0] in _HEADS}
    if _CLASSES in state and _CLASSES in fresh and state[_CLASSES].shape != tuple(fresh[_CLASSES].shape):
        anew.add(_CLASSES)
    body = {name: array for name, array in state.items() if name not in anew}
    return {**body, **{name: parameter.asnumpy() for name, parameter in fresh.items() if name in anew}}


def _with_resized_table(state: State, fresh: Mapping[str, Parameter], cell: nn.Cell) -> State:
    if _TABLE not in state or _TABLE not in fresh or state[_TABLE].ndim != 3:
        return state
    patches = cell.patch_embed.num_patches
    slots = fresh[_TABLE].shape[1] - patches  # of class tokens, where the table has any
    return {**state, _TABLE: resize_pos_embed(state[_TABLE], slots, math.isqrt(patches))}


def _with_channels(state: State, fresh: Mapping[str, Parameter]) -> State:
    """Filters of colours made to fit a model of other channels, as timm does: summed for one, else repeated in turn and
    scaled, so that what they give keeps its size."""
    adapted = {}
    for name, array in state.items():
        channels = fresh[name].shape[1] if name in fresh and fresh[name].ndim == 4 and array.ndim == 4 else 3
        if array.shape[1:2] != (3,) or channels == 3:
            continue
        if channels == 1:
            adapted[name] = array.sum(1, keepdims=True)
        else:
            adapted[name] = np.take(array, np.arange(channels) % 3, 1) * np.float32(3 / channels)
    return {**state, **adapted}


def _check(state: State, wanted: Mapping[str, tuple[int, ...]], path: Path) -> None:
    given = {name: array.shape for name, array in state.items()}
    try:
        checkpoints.check_names(wanted, given, where=path)
    except UserError as error:
        table_differs = given.get(_TABLE, wanted.get(_TABLE)) != wanted.get(_TABLE)
        hint = "; image_size (--image_size) resizes the position table" if table_differs else ""
        raise UserError(f"{error}{hint}") from None


def _card(source: _Source, name: str, classes: int, size: int) -> ModelCard:
    if source.card is None:
        return checkpoints.card_for(spec(name), classes, size, counters=source.counters)
    names = source.card.class_names if classes == source.card.num_classes else None
    return dataclasses.replace(source.card, model=name, num_classes=classes, image_size=size, class_names=names)
