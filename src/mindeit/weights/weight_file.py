"""The content of a file of weights, official or ours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mindeit.errors import UserError
from mindeit.files import PathLike, existing_file
from mindeit.models.registry import spec
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights import timm_folder, torch_files
from mindeit.weights.adapt import CLASSES, DISTILLATION, TABLE, State
from mindeit.weights.card import ModelCard
from mindeit.weights.hub import local_path
from mindeit.weights.identify import head_classes
from mindeit.weights.names import split_counters


@dataclass(frozen=True)
class WeightFile:
    """``official``: whether the names are the official ones, or ours."""

    path: Path
    state: State
    card: ModelCard | None
    official: bool
    counters: Mapping[str, int]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self.state.items()}

    @property
    def classes(self) -> int | None:
        """None: the file holds no head, which is an error unless ``num_classes`` asks for a fresh one or for none."""
        return self.card.num_classes if self.card else head_classes(self.shapes)

    @property
    def plain(self) -> bool:
        """Whether the weights are a whole model's without a distillation token, and not a distilled one's that lost
        it."""
        if self.card is not None and spec(self.card.model).distilled:
            return False
        return {CLASSES, TABLE} <= set(self.state) and not {DISTILLATION, "head_dist.weight"} & set(self.state)


def open_weights(path: PathLike, model: str | None, use_ema: bool, check: bool) -> WeightFile:
    """Read ``path``, of any kind: a file, a folder as timm saves it, or either on the Hugging Face hub."""
    if model is not None:
        spec(model)  # so that a misspelt name is an error before a large file is read
    path, kinds = Path(local_path(path)), (*torch_files.TORCH_SUFFIXES, *checkpoints.SUFFIXES)
    if os.path.isdir(path):  # False for a name that is too long as well
        if use_ema:
            raise UserError(f"{path}: a folder of timm's holds one set of weights, so no EMA to take (use_ema)")
        weights, said = timm_folder.read(path)
        return WeightFile(path, weights, said, official=True, counters=said.counters)
    if existing_file(path).suffix not in kinds:
        raise UserError(f"{path}: unknown kind of file '{path.suffix}'; allowed: {', '.join(kinds)}")
    with_card = path.suffix == ".safetensors" and torch_files.has_metadata(path, checkpoints.CARD_KEY)
    if path.suffix == ".ckpt" or with_card:
        state, card = checkpoints.read(path, use_ema=use_ema, check=check)
        return WeightFile(path, state, card, official=False, counters=card.counters if card else {})
    state, counters = split_counters(torch_files.read_official(path, use_ema=use_ema))
    return WeightFile(path, state, None, official=True, counters=counters)
