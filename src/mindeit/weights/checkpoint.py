"""Weights on disk: read, write atomically, load strictly. A `ModelCard` says how to use them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Literal, Union

import mindspore as ms
import numpy as np
from mindspore import nn
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mindeit import typed
from mindeit.errors import UserError
from mindeit.files import PathLike, atomic, existing_file
from mindeit.typed import Count
from mindeit.weights import ckpt
from mindeit.weights.card import ModelCard
from mindeit.weights.integrity import (
    DIGEST_KEY,
    digest,
    digest_of_text,
    refuse_damaged,
    refuse_not_finite,
    warn_unchecked,
)

State = Mapping[str, np.ndarray]
Entries = Mapping[str, Union[np.ndarray, str]]

CARD_KEY = "mindeit"
RECORD_KEY = "mindeit.training"
EMA, OPTIMIZER = "ema/", "optimizer/"
SUFFIXES = (".ckpt", ".safetensors")
_OURS = (CARD_KEY, DIGEST_KEY)
_RECORD = {
    "use": Literal["model", "ema"],
    "model": str,
    "num_classes": Count,
    "opt": str,
    "epoch": Count,
    "batch": Count,
    "step": Count,
}
_LATER = {  # which some records lack
    "count": Count,
    "places": tuple[str, ...],
    "config": Mapping[str, Any],
    "train_state": Mapping[str, Any],
    "scale": Mapping[str, Any],
}
_RENAMED = {"journey": "train_state", "pictures": "images"}  # as earlier versions wrote them


def read(
    path: PathLike, *, use_ema: bool = False, check: bool = True
) -> tuple[dict[str, np.ndarray], ModelCard | None]:
    """Weights under this project's names, and the card if the file carries one.

    A training checkpoint gives the set of weights it was saved for; ``use_ema``: the average in any case. ``check``:
    refuse a file that does not match its checksum and its digest.
    """
    path = existing_file(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of checkpoint '{path.suffix}'; allowed: {', '.join(SUFFIXES)}")
    if path.suffix == ".ckpt" and check:
        verify(path)
    record = read_record(path) if path.suffix == ".ckpt" else None
    if use_ema and record is None:
        raise UserError(f"{path} holds one set of weights; use_ema is for training checkpoints")
    if record is not None:
        averaged = record["use"] == "ema"
        state, card = _read_set(path, EMA if use_ema or averaged else "", check)
        if card and use_ema and not averaged:
            card = replace(card, temperature=None)  # it was fitted to the other set
        return state, card
    return _read_safetensors(path, check) if path.suffix == ".safetensors" else read_ckpt(path, check=check)


def read_record(path: PathLike) -> dict[str, Any] | None:
    """The record of a training checkpoint, at the cost of a few bytes, not verified. None: there is no record."""
    name, content = ckpt.read_first(existing_file(path))
    if name != RECORD_KEY:
        return None
    where = f"{path}, training record"
    fields = typed.parse(content, where)
    if isinstance(fields, dict):
        fields = {_RENAMED.get(key, key): value for key, value in fields.items()}
    return typed.read_fields({**_RECORD, **_LATER}, fields, where, needed=_RECORD)


def verify(path: PathLike) -> None:
    """Read the whole file and compare MindSpore's checksum at its end. Files of others may go without one."""
    path = existing_file(path)
    if not ckpt.verify(path) and (read_record(path) is not None or ckpt.read_entries(path, _OURS.__contains__)):
        raise UserError(f"{path}: the checksum at its end is missing, the file is damaged")


def read_ckpt(
    path: Path, wanted: Callable[[str], bool] = lambda name: True, *, check: bool = True
) -> tuple[dict[str, np.ndarray], ModelCard | None]:
    """The wanted arrays, and the card; `verify` comes first."""
    entries = ckpt.read_entries(path, lambda name: name in _OURS or wanted(name))
    return _weights(path, entries, check)


def _read_set(path: Path, prefix: str, check: bool) -> tuple[dict[str, np.ndarray], ModelCard | None]:
    state, card = read_ckpt(path, lambda name: _part(name) == prefix, check=check)
    if not state:
        raise UserError(f"{path} holds no averaged weights; leave out use_ema")
    return {name[len(prefix) :]: value for name, value in state.items()}, card


def _read_safetensors(path: Path, check: bool) -> tuple[dict[str, np.ndarray], ModelCard | None]:
    try:
        with safe_open(path, framework="numpy") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return _weights(path, {**state, **(file.metadata() or {})}, check)
    except (SafetensorError, TypeError) as error:
        raise UserError(f"{path}: not a safetensors file, or truncated ({error})") from None


def _weights(path: Path, entries: Entries, check: bool) -> tuple[dict[str, np.ndarray], ModelCard | None]:
    """The content of a file of ours, checked against its digests."""
    state = {name: value for name, value in entries.items() if isinstance(value, np.ndarray)}
    card, said = (entries.get(key) for key in _OURS)
    if check and isinstance(said, str):
        expected = typed.read_fields({}, typed.parse(said, f"{path}, digest"), f"{path}, digest")
        for part, found in digests(state, card if isinstance(card, str) else None).items():
            if expected.get(part) != found:
                refuse_damaged(path, "model card does" if part == CARD_KEY else "tensors do")
    elif check and card is not None:
        warn_unchecked(path)
    return state, ModelCard.from_json(card, f"{path}, model card") if isinstance(card, str) else None


def digests(state: State, card: str | None) -> dict[str, str]:
    """Of each part of a file that can be read by itself: weights, their average, moments, record, card."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, value in state.items():
        part = _part(name)
        parts.setdefault(part, {})[name[len(part) :]] = value
    found = {part: digest(arrays) for part, arrays in parts.items()}
    return found if card is None else {**found, CARD_KEY: digest_of_text(card)}


def read_card(path: PathLike) -> ModelCard | None:
    """The card alone, not verified; None: the file is of others, and carries none."""
    path = existing_file(path)
    if path.suffix == ".ckpt":
        text = ckpt.read_entries(path, CARD_KEY.__eq__).get(CARD_KEY)
        return ModelCard.from_json(text, f"{path}, model card") if isinstance(text, str) else None
    return _read_safetensors(path, check=False)[1]


def write_card(path: PathLike, card: ModelCard) -> None:
    """Give a sound file of ours another card. It is replaced as a whole, and all else in it stays, bit for bit."""
    path = existing_file(path)
    if path.suffix != ".ckpt":
        write(path, _read_safetensors(path, check=True)[0], card)
        return
    verify(path)
    text, said = card.to_json(), ckpt.read_entries(path, DIGEST_KEY.__eq__).get(DIGEST_KEY)
    texts = {CARD_KEY: text}
    if isinstance(said, str):  # files did not always carry one
        texts[DIGEST_KEY] = json.dumps({**typed.parse(said, f"{path}, digest"), CARD_KEY: digest_of_text(text)})
    with atomic(path) as temporary:
        ckpt.write_with_texts(path, temporary, texts)
        sync(temporary)


def _part(name: str) -> str:
    return next((prefix for prefix in (EMA, OPTIMIZER, RECORD_KEY) if name.startswith(prefix)), "")


def write(path: PathLike, state: State, card: ModelCard | None = None) -> None:
    """Write ``.ckpt`` or ``.safetensors``, by the suffix; the file appears whole or not at all."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of checkpoint '{path.suffix}'; allowed: {', '.join(SUFFIXES)}")
    text = card.to_json() if card else None
    texts = {DIGEST_KEY: json.dumps(digests(state, text))}
    if text is not None:
        texts[CARD_KEY] = text
    with atomic(path) as temporary:
        if path.suffix == ".ckpt":
            ckpt.write(temporary, state, texts)
        else:
            arrays = {name: np.asarray(value, order="C") for name, value in state.items()}
            save_file(arrays, temporary, {"format": "np", **texts})
        sync(temporary)


def sync(path: Path) -> None:
    """Wait until the file or folder is on the disk, so that it survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_strict(model: nn.Cell, state: State, where: PathLike) -> None:
    """Set every parameter of ``model``; all that is missing, unexpected or misshapen is listed, and nothing set."""
    wanted = {parameter.name: parameter for parameter in model.get_parameters()}
    check_names(
        {name: tuple(p.shape) for name, p in wanted.items()}, {k: v.shape for k, v in state.items()}, where=where
    )
    refuse_not_finite(state, where)
    for name, parameter in wanted.items():
        parameter.set_data(ms.Tensor(state[name], parameter.dtype))


def check_names(wanted: Mapping[str, tuple], given: Mapping[str, tuple], *, where: object) -> None:
    """Compare names and shapes; one error names every difference."""
    problems = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "misshapen": [
            f"{name} {tuple(given[name])} instead of {tuple(wanted[name])}"
            for name in wanted
            if name in given and tuple(given[name]) != tuple(wanted[name])
        ],
    }
    found = [f"{len(names)} {kind}: {', '.join(names)}" for kind, names in problems.items() if names]
    if found:
        raise UserError(f"{where}: the weights do not fit the model; {'; '.join(found)}")
