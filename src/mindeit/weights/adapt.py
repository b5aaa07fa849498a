"""Adapts weights to another head, another resolution or distillation; each change is described in a line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mindeit.weights.position_tables import resize_pos_embed

if TYPE_CHECKING:
    from mindspore import Parameter, nn

State = dict[str, np.ndarray]
Change = tuple[State, list[str]]
HEADS = ("head", "head_dist")
TABLE, CLASSES, DISTILLATION = "pos_embed", "cls_token", "dist_token"


def with_distillation(state: State) -> Change:
    """Start the distillation token and head from a plain model's token and head; at first both predict the same."""
    table = state[TABLE]
    heads = {name.replace("head.", "head_dist."): array for name, array in state.items() if name.startswith("head.")}
    distilled = {**state, **heads, TABLE: np.concatenate([table[:, :1], table], 1), DISTILLATION: state[CLASSES]}
    return distilled, ["the distillation token and head start from the class token and head (a plain model's weights)"]


def with_fresh_head(state: State, fresh: Mapping[str, Parameter], held: int | None, classes: int) -> Change:
    """Class tokens are part of the head where each class has one."""
    anew = {name for name in (*state, *fresh) if name.split(".")[0] in HEADS}
    if CLASSES in state and CLASSES in fresh and state[CLASSES].shape != tuple(fresh[CLASSES].shape):
        anew.add(CLASSES)
    body = {name: array for name, array in state.items() if name not in anew}
    head = {name: parameter.asnumpy() for name, parameter in fresh.items() if name in anew}
    known = "others" if held == classes else held or "none"
    return {**body, **head}, [f"the head starts anew for {classes} classes (the weights have {known})"] * bool(classes)


def with_resized_table(state: State, fresh: Mapping[str, Parameter], cell: nn.Cell) -> Change:
    if TABLE not in state or TABLE not in fresh or state[TABLE].ndim != 3:
        return state, []
    patches = cell.patch_embed.num_patches
    slots = fresh[TABLE].shape[1] - patches  # of class tokens, where the table has any
    old, new = math.isqrt(max(state[TABLE].shape[1] - slots, 0)), math.isqrt(patches)
    told = [] if old == new else [f"the position table is resized from {old} x {old} to {new} x {new} patches"]
    return {**state, TABLE: resize_pos_embed(state[TABLE], slots, new)}, told


def with_channels(state: State, fresh: Mapping[str, Parameter]) -> State:
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
