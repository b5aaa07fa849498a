"""The temperature that suits a set of images, kept in the card of the checkpoint that was validated on them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mindeit.config import Config
from mindeit.data.imagenet_sets import IMAGENET_SETS
from mindeit.errors import UserError
from mindeit.files import check_writable, existing_file
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.card import ModelCard

if TYPE_CHECKING:
    from mindeit.training.details import Details


def check(config: Config) -> None:
    """Refuse, before any work, what `write` could not do."""
    path, _ = _checkpoint(config)
    if config.data.dataset in IMAGENET_SETS:
        raise UserError(
            f"--write_temperature is for images such as the model will see, and dataset is {config.data.dataset}; "
            "use ImageNet's own"
        )
    record = checkpoints.read_record(path) if path.endswith(".ckpt") else None
    if config.model.use_ema and record and record["use"] != "ema":
        raise UserError(f"{path}: --write_temperature is for the weights that are used by default; leave out use_ema")
    check_writable(path)


def write(config: Config, details: Details) -> str:
    """Store the fitted temperature; returns a line that says so."""
    path, card = _checkpoint(config)
    if not details.temperature_found:
        raise UserError(
            f"{path}: no temperature was written, for {details.fitted.temperature:.3g} is the end of the search: "
            "nearly every image is right, or hardly any; validate on more images"
        )
    checkpoints.write_card(path, replace(card, temperature=details.fitted.temperature))
    return f"wrote temperature {details.fitted.temperature:.4g} into {path}"


def _checkpoint(config: Config) -> tuple[str, ModelCard]:
    path = config.model.ckpt_path
    if path is None:
        raise UserError("--write_temperature needs --ckpt_path FILE")
    card = checkpoints.read_card(path) if existing_file(path).suffix in checkpoints.SUFFIXES else None
    if card is None:
        raise UserError(
            f"{path}: --write_temperature is for this project's checkpoints ({', '.join(checkpoints.SUFFIXES)}); "
            "convert official weights first (convert_pt2ms.py), and export afterwards (export.py)"
        )
    return path, card
