"""MindSpore's names of norm parameters against PyTorch's; every other parameter already carries the official name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from mindspore import nn

_Value = TypeVar("_Value")
COUNTER = ".num_batches_tracked"  # PyTorch's BatchNorm counts its batches; MindSpore's does not

_AFFINE = {"gamma": "weight", "beta": "bias"}
_BATCH = {**_AFFINE, "moving_mean": "running_mean", "moving_variance": "running_var"}


def official_names(model: nn.Cell) -> dict[str, str]:
    """Our name -> official name of every parameter, in the official order.

    The cell's type decides: a family's own ``alpha``, ``beta`` or ``gamma_1`` outside a norm stay as they are.
    """
    names = {}
    for _, cell in model.cells_and_names():
        renamed = _renamed_leaves(cell)
        own = {parameter.name.rpartition(".")[2]: parameter.name for parameter in cell.get_parameters(expand=False)}
        for leaf in (*(leaf for leaf in renamed if leaf in own), *(leaf for leaf in own if leaf not in renamed)):
            names[own[leaf]] = own[leaf][: -len(leaf)] + renamed.get(leaf, leaf)
    return names


def _renamed_leaves(cell: Any) -> Mapping[str, str]:
    if isinstance(cell, nn.LayerNorm):  # mindeit's own is one
        return _AFFINE
    if isinstance(cell, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
        return _BATCH
    return {}


def rename(state: Mapping[str, _Value], names: Mapping[str, str]) -> dict[str, _Value]:
    """Names not in the table stay, to be reported by the strict check."""
    return {names.get(name, name): value for name, value in state.items()}


def split_counters(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """(weights, BatchNorm's batch counters); the counters travel in the card, so that the way back is exact."""
    weights = {name: value for name, value in state.items() if not name.endswith(COUNTER)}
    counters = {name: int(value) for name, value in state.items() if name.endswith(COUNTER)}
    return weights, counters


def join_counters(state: Mapping[str, Any], counters: Mapping[str, int]) -> dict[str, Any]:
    """Put each counter back behind its running variance."""
    joined = {}
    for name, value in state.items():
        joined[name] = value
        counter = name.rpartition(".")[0] + COUNTER
        if name.endswith(".running_var") and counter in counters:
            joined[counter] = np.array(counters[counter], np.int64)
    return joined
