"""The mean of several checkpoints' weights ("model soup"): one model, often better than each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from mindeit.errors import UserError
from mindeit.files import PathLike
from mindeit.weights.adapt import State
from mindeit.weights.card import ModelCard
from mindeit.weights.load import load_weights

_OF_ONE_FILE = ("counters", "temperature")  # of the card: what the files may differ in


def average(paths: Sequence[PathLike], *, use_ema: bool = False, check: bool = True) -> tuple[State, ModelCard]:
    """Summed in float64, one file in memory at a time; batch norm's statistics are averaged as the weights are. The
    card is that of the first file, with which the others have to agree."""
    first, card = load_weights(paths[0], use_ema=use_ema, check=check)
    sums = {name: value.astype(np.float64) for name, value in first.items()}
    for path in paths[1:]:
        state, other = load_weights(path, use_ema=use_ema, check=check)
        _check_agree(card, other, paths[0], path)
        for name, value in state.items():
            sums[name] += value
    mean = {name: (total / len(paths)).astype(first[name].dtype) for name, total in sums.items()}
    return mean, replace(card, temperature=None)


def _check_agree(card: ModelCard, other: ModelCard, first: PathLike, path: PathLike) -> None:
    for name in (field.name for field in fields(card) if field.name not in _OF_ONE_FILE):
        wanted, given = getattr(card, name), getattr(other, name)
        if wanted != given:
            raise UserError(f"{path}: {name} is {given}, but in {first} it is {wanted}; only alike models have a mean")
