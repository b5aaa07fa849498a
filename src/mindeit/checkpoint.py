"""Weights on disk: read, write at once or not at all, load strictly. A card says what is needed to use them."""
from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Optional, Union

import numpy as np

from mindeit.errors import UserError
from mindeit.files import PathLike, atomic, existing_file

if TYPE_CHECKING:
    from mindspore import nn

    from mindeit.models.spec import ModelSpec

State = Mapping[str, np.ndarray]

CARD_KEY = "mindeit"
RECORD_KEY = "mindeit.training"
EMA, OPTIMIZER = "ema/", "optimizer/"
SUFFIXES = (".ckpt", ".safetensors")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_MARK, _SUM_BYTES = b"crc_num", 10  # what MindSpore writes behind the values, and the bytes of the CRC32 after it
_BLOCK = 1 << 22
_TYPES = {name: np.dtype(name.lower()) for name in (
    "Bool", "Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float16", "Float32", "Float64")}


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


def believe(card: ModelCard, asked: Mapping[str, Any], where: PathLike, remedy: str) -> None:
    """What is asked of a file (fields of its card) may repeat the card, not contradict it."""
    for name, value in asked.items():
        if getattr(card, name) not in (None, value):
            raise UserError(f"{name} is {value}, but {where} was made for {getattr(card, name)}; leave it out, "
                            f"or {remedy}")


def read(path: PathLike, *, use_ema: bool = False) -> tuple[dict[str, np.ndarray], Optional[ModelCard]]:
    """Weights under this project's names, and the card if the file carries one.

    A training checkpoint gives the set of weights it was saved for; ``use_ema``: the average in any case.
    """
    path = existing_file(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of checkpoint '{path.suffix}'; allowed: {', '.join(SUFFIXES)}")
    if path.suffix == ".ckpt":
        verify(path)
    record = read_record(path) if path.suffix == ".ckpt" else None
    if use_ema and record is None:
        raise UserError(f"{path} holds one set of weights; use_ema is for training checkpoints")
    if record is not None:
        return _read_set(path, EMA if use_ema or record.get("use") == "ema" else "")
    return _read_safetensors(path) if path.suffix == ".safetensors" else read_ckpt(path)


def read_record(path: PathLike) -> Optional[dict[str, Any]]:
    """The record of a training checkpoint, at the cost of a few bytes, not verified. None: there is no record."""
    path = existing_file(path)
    with _refused_when_unreadable(path), path.open("rb") as file:
        first = next(_messages(file, path.stat().st_size))
        return json.loads(first.tensor.tensor_content) if first.tag == RECORD_KEY else None


def verify(path: PathLike) -> None:
    """Read the whole file and compare MindSpore's checksum at its end. Files of others may go without one."""
    path = existing_file(path)
    end, expected = _content_end(path)
    if expected is None and read_record(path) is None:
        return
    found = 0
    with _refused_when_unreadable(path), path.open("rb") as file:
        for start in range(0, end, _BLOCK):
            found = zlib.crc32(file.read(min(_BLOCK, end - start)), found)
    if found != expected:
        raise UserError(f"{path}: checksum does not match, the file is damaged")


def _read_set(path: Path, prefix: str) -> tuple[dict[str, np.ndarray], Optional[ModelCard]]:
    def of_the_set(name: str) -> bool:
        return name.startswith(prefix) if prefix else not name.startswith((EMA, OPTIMIZER, RECORD_KEY))

    state, card = read_ckpt(path, lambda name: name == CARD_KEY or of_the_set(name))
    if not state:
        raise UserError(f"{path} holds no averaged weights; leave out use_ema")
    return {name[len(prefix):]: value for name, value in state.items()}, card


def _card(path: PathLike, text: Optional[str]) -> Optional[ModelCard]:
    try:
        return None if text is None else ModelCard.from_json(text)
    except (ValueError, TypeError):
        raise UserError(f"{path}: the model card is not readable: {text[:80]}") from None


def read_ckpt(
    path: Path, wanted: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, np.ndarray], Optional[ModelCard]]:
    """The wanted arrays, and the card; `verify` comes first. ``ms.load_checkpoint`` needs three times the file's size,
    and that much memory free even of the page cache; entry by entry, one copy of what is wanted does."""
    entries = {}
    with _refused_when_unreadable(path), path.open("rb") as file:
        for name, parts in groupby(_messages(file, _content_end(path)[0]), key=lambda message: message.tag):
            entries.update({name: _value([part.tensor for part in parts])} if wanted(name) else {})
    text = entries.pop(CARD_KEY, None)
    return {name: value for name, value in entries.items() if isinstance(value, np.ndarray)}, _card(path, text)


def _messages(file: BinaryIO, end: int) -> Iterator[Any]:
    """MindSpore's file is one protobuf message, ``repeated Value value = 1``; each value is read by itself."""
    from mindspore.train.checkpoint_pb2 import Checkpoint

    while file.tell() < end:
        if file.read(1) != b"\n":  # field 1, with a length
            raise ValueError("not a value")
        length = 0
        for shift in range(0, 64, 7):  # seven bits a byte; the eighth says that more follow
            byte = file.read(1)[0]
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        if length > end - file.tell():
            raise ValueError("truncated")
        yield Checkpoint.Value.FromString(file.read(length))


def _value(parts: list[Any]) -> Union[np.ndarray, str]:
    """An array or text from the slices it was written in."""
    content, kind, shape = b"".join(part.tensor_content for part in parts), parts[0].tensor_type, tuple(parts[0].dims)
    if kind == "str":
        return str(np.frombuffer(content, f"U{len(content) // 4}")[0])
    if kind == "BFloat16":  # NumPy has none: as float32, which holds each of its values
        return (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(content, _TYPES[kind]).reshape(shape).copy()


def _content_end(path: Path) -> tuple[int, Optional[int]]:
    """(where the values end, the checksum written behind them or None)."""
    size = path.stat().st_size
    with _refused_when_unreadable(path), path.open("rb") as file:
        file.seek(max(0, size - len(_MARK) - _SUM_BYTES))
        mark, checksum = file.read(len(_MARK)), file.read()
    return (size - len(_MARK) - _SUM_BYTES, int.from_bytes(checksum, "big")) if mark == _MARK else (size, None)


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], Optional[ModelCard]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return state, _card(path, (file.metadata() or {}).get(CARD_KEY))
    except (SafetensorError, TypeError) as error:
        raise UserError(f"{path}: not a safetensors file, or truncated ({error})") from None


def write(path: PathLike, state: State, card: Optional[ModelCard] = None) -> None:
    """Write ``.ckpt`` or ``.safetensors``, by the suffix; the file appears whole or not at all."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of checkpoint '{path.suffix}'; allowed: {', '.join(SUFFIXES)}")
    with atomic(path) as temporary:
        if path.suffix == ".ckpt":
            _write_ckpt(temporary, state, card)
        else:
            from safetensors.numpy import save_file

            metadata = {"format": "np", **({CARD_KEY: card.to_json()} if card else {})}
            save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, temporary, metadata)
        sync(temporary)


def _write_ckpt(path: Path, state: State, card: Optional[ModelCard]) -> None:
    import mindspore as ms

    arrays = {name: np.asarray(value, order="C") for name, value in state.items()}
    for name, array in arrays.items():
        if array.size == 0 or array.dtype not in _TYPES.values():
            raise ValueError(f"{name}: MindSpore's format cannot hold {array.dtype} of shape {array.shape}")
    rows = [{"name": name, "data": ms.Tensor.from_numpy(array)} for name, array in arrays.items()]
    with _quiet():
        try:
            appended = {CARD_KEY: card.to_json()} if card else None
            ms.save_checkpoint(rows, str(path), append_dict=appended, crc_check=True)
        finally:
            path.with_suffix(".tmp").unlink(missing_ok=True)  # MindSpore's own, left when the disk is full


def sync(path: Path) -> None:
    """Wait until the file or folder is on the disk: after a power cut too, a name has its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
def _refused_when_unreadable(path: Path) -> Iterator[None]:
    from google.protobuf.message import DecodeError

    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError, StopIteration, OSError, DecodeError):
        raise UserError(f"{path}: not a MindSpore checkpoint, or truncated") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """MindSpore logs a page before it raises; our one line says it."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
