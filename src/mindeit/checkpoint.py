"""Weights on disk: read, write at once or not at all, load strictly. A card says what is needed to use them."""
from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np

from mindeit.errors import UserError
from mindeit.files import PathLike, atomic, existing_file

if TYPE_CHECKING:
    from mindspore import nn

    from mindeit.models.catalogue import ModelSpec

State = Mapping[str, np.ndarray]

CARD_KEY = "mindeit"
SUFFIXES = (".ckpt", ".safetensors")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelCard:
    """What a checkpoint carries besides weights. ``counters`` keeps BatchNorm's step counts of official files."""

    model: str
    num_classes: int
    image_size: int
    crop_pct: float
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    class_names: Optional[tuple[str, ...]] = None
    counters: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        values = json.loads(text)
        for key in ("mean", "std", "class_names"):
            if values.get(key) is not None:
                values[key] = tuple(values[key])
        return cls(**values)


def card_for(
    spec: ModelSpec,
    num_classes: int,
    image_size: Optional[int] = None,
    class_names: Optional[tuple[str, ...]] = None,
    counters: Mapping[str, int] = {},  # noqa: B006 (never changed)
) -> ModelCard:
    return ModelCard(
        model=spec.name,
        num_classes=num_classes,
        image_size=image_size or spec.image_size,
        crop_pct=spec.crop_pct,
        class_names=class_names,
        counters=dict(counters),
    )


def read(path: PathLike) -> tuple[dict[str, np.ndarray], Optional[ModelCard]]:
    """Weights under this project's names, and the card if the file carries one."""
    path = existing_file(path)
    if path.suffix == ".safetensors":
        state, text = _read_safetensors(path)
    elif path.suffix == ".ckpt":
        state, text = _read_ckpt(path)
    else:
        raise UserError(f"{path}: unknown kind of checkpoint '{path.suffix}'; allowed: {', '.join(SUFFIXES)}")
    if text is None:
        return state, None
    try:
        return state, ModelCard.from_json(text)
    except (ValueError, TypeError):
        raise UserError(f"{path}: the model card is not readable: {text[:80]}") from None


def _read_ckpt(path: Path) -> tuple[dict[str, np.ndarray], Optional[str]]:
    import mindspore as ms

    with _quiet():
        try:
            loaded = ms.load_checkpoint(str(path))
        except (ValueError, RuntimeError, TypeError, KeyError, OSError):
            raise UserError(f"{path}: not a MindSpore checkpoint, or truncated") from None
    text = loaded.pop(CARD_KEY, None)
    return {name: value.asnumpy() for name, value in loaded.items() if isinstance(value, ms.Tensor)}, text


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], Optional[str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return state, (file.metadata() or {}).get(CARD_KEY)
    except (SafetensorError, TypeError) as error:
        raise UserError(f"{path}: not a safetensors file, or truncated ({error})") from None


def write(path: PathLike, state: State, card: Optional[ModelCard] = None) -> None:
    """Write ``.ckpt`` or ``.safetensors``, by the suffix; the file appears whole or not at all."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of checkpoint '{path.suffix}'; allowed: {', '.join(SUFFIXES)}")
    with atomic(path) as temporary:
        if path.suffix == ".safetensors":
            from safetensors.numpy import save_file

            metadata = {"format": "np", **({CARD_KEY: card.to_json()} if card else {})}
            save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, temporary, metadata)
        else:
            import mindspore as ms

            rows = [{"name": name, "data": ms.Tensor(value)} for name, value in state.items()]
            ms.save_checkpoint(rows, str(temporary), append_dict={CARD_KEY: card.to_json()} if card else None)


def load_strict(model: nn.Cell, state: State, where: PathLike) -> None:
    """Set every parameter of ``model``; all that is missing, unexpected or misshapen is listed, and nothing set."""
    import mindspore as ms

    wanted = {parameter.name: parameter for parameter in model.get_parameters()}
    check_names(
        {name: tuple(p.shape) for name, p in wanted.items()}, {k: v.shape for k, v in state.items()}, where=where
    )
    for name, parameter in wanted.items():
        parameter.set_data(ms.Tensor(state[name], parameter.dtype))


def check_names(wanted: Mapping[str, tuple], given: Mapping[str, tuple], *, where: PathLike) -> None:
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


@contextmanager
def _quiet() -> Iterator[None]:
    """MindSpore logs a page before it raises; our one line says it."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
