"""Files of weights under the official names: read safely, write atomically. PyTorch is imported only for ``.pth``."""

from __future__ import annotations

import argparse
import io
import mmap
import pickle
import re
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save_file

from mindeit.errors import UserError
from mindeit.files import atomic, existing_file
from mindeit.weights.pickle_survey import Refused, storages

State = dict[str, np.ndarray]
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar")
_WRAPPERS = ("model", "state_dict")  # where training scripts put the weights


def read_official(path: str | Path, *, use_ema: bool = False) -> State:
    """Official names -> float32 arrays (whole numbers, BatchNorm's counters, stay int64)."""
    if existing_file(path).suffix == ".safetensors":
        if use_ema:
            raise UserError(f"{path}: a .safetensors file holds one set of weights, so no EMA to take (use_ema)")
        return read_safetensors(path)
    return read_torch(path, use_ema=use_ema)


def read_torch(path: str | Path, *, use_ema: bool = False) -> State:
    """A ``.pth``: ``{'model': weights}``, bare weights, or a training checkpoint (``use_ema``: its average).

    Pickles can run code when they are opened, so only tensors, plain containers, option lists and numbers are let in.
    """
    torch = import_torch()
    content = _load_safely(torch, existing_file(path))
    weights = _weights(content, str(path), use_ema)
    wrong = [str(k) for k, v in weights.items() if not (isinstance(k, str) and isinstance(v, torch.Tensor))]
    if wrong or not weights:
        held = f"entry '{wrong[0]}' is not a tensor" if wrong else "it is empty"
        raise UserError(f"{path} holds no weights: {held}; allowed: {{'model': state_dict}} or a state_dict")
    _check_expanded(weights, Path(path))
    return {_without_wrapper(name): _as_array(torch, tensor) for name, tensor in weights.items()}


def import_torch() -> Any:
    try:
        import torch  # optional: for these files alone
    except ImportError:
        raise UserError("this needs PyTorch, which is not installed: pip install 'mindeit[convert]'") from None
    if tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < (2, 6):
        raise UserError(f"PyTorch {torch.__version__} cannot read untrusted files safely; allowed: 2.6 or newer")
    return torch


def _load_safely(torch: Any, path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_allowed_globals()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our error says what PyTorch warns about
            (_check_archive if _head(path) == b"PK" else _check_pickles)(torch, path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, UserError):
        raise
    except Refused as refused:
        raise UserError(_holds(path, str(refused))) from None
    except Exception as error:  # damaged pickles raise nearly anything
        raise UserError(_why_unreadable(path, error)) from error


def _check_archive(torch: Any, path: Path) -> None:
    """Refuse entries larger than the file, and wrong check sums; PyTorch checks neither."""
    with zipfile.ZipFile(path) as archive:
        entries, size = archive.infolist(), path.stat().st_size
        packed = next((entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED), None)
        if packed:
            raise UserError(
                f"{path}: '{packed.filename}' in it is compressed, which torch.save never does: refused; "
                "unpack and save it anew (torch.load, torch.save)"
            )
        if sum(entry.file_size for entry in entries) > size:
            raise UserError(f"{path} is damaged: it says that it holds more than its {size} bytes; fetch it again")
        _check_sums(archive, path)
        names = {entry.filename: entry.file_size for entry in entries}
        if any(name.endswith("/constants.pkl") for name in names):
            return  # TorchScript, which PyTorch refuses by that name
        for name in names:
            if name.endswith(".pkl"):
                data = f"{name.rpartition('/')[0]}/data/"
                found = storages(io.BytesIO(archive.read(name)))
                _check_sizes(torch, path, found, {key: names.get(data + key, 0) for key in found})


def _check_sums(archive: zipfile.ZipFile, path: Path) -> None:
    if any(entry.CRC for entry in archive.infolist()):
        damaged = archive.testzip()
        if damaged:
            raise UserError(f"{path} is damaged (wrong check sum of '{damaged}'); fetch it again")
    else:  # PyTorch has an option to leave them out
        for entry in archive.infolist():
            entry.CRC = None  # type: ignore[assignment]  # so that zipfile compares none


def _check_pickles(torch: Any, path: Path) -> None:
    """As PyTorch before 1.6 wrote it: pickles, one of which tells of the storages that follow."""
    if tarfile.is_tarfile(path):
        raise UserError(
            f"{path} is a tar archive, not a file of weights; allowed: what torch.save of PyTorch 0.4 or newer writes"
        )
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for _ in range(5):  # a mark, versions, sizes of numbers, the tensors, the names of their storages
            found = storages(content)
            _check_sizes(torch, path, found, dict.fromkeys(found, len(content)))
            if content.tell() == len(content) or content[content.tell()] != pickle.PROTO[0]:
                break


def _check_sizes(torch: Any, path: Path, found: Mapping[str, tuple[str, int]], held: Mapping[str, int]) -> None:
    """Storages as the pickle announces them, and the bytes that are there for each."""
    for key, (kind, count) in found.items():
        name = kind.rpartition(".")[2]
        announced = count * (1 if name == "UntypedStorage" else getattr(torch, name).dtype.itemsize)
        if not 0 <= announced <= held[key]:
            raise UserError(
                f"{path} is damaged: it announces a tensor of {announced} bytes and holds {held[key]} of "
                "them; fetch it again"
            )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


def _allowed_globals() -> list[Any]:
    """What official training files hold besides tensors: their options, and NumPy numbers among the statistics."""
    stand_ins: list[tuple[Any, str]] = [(_NumpyType, "numpy.dtype")]
    stand_ins += [(_numpy_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [argparse.Namespace, *stand_ins]


class _NumpyType:
    """Stands in for numpy.dtype while a file is opened: only plain numbers, no objects, no fields."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[biuf][1248]", code):
            raise ValueError(f"unsupported numpy type {code!r}")
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "<"


def _numpy_number(kind: _NumpyType, data: bytes) -> int | float:
    return np.frombuffer(data, kind.order + kind.code)[0].item()


def _why_unreadable(path: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    refused = re.search(r"GLOBAL ([\w.]+)", text)
    if refused:
        return _holds(path, refused[1])
    if "TorchScript" in text:
        return f"{path} is a TorchScript program, not a file of weights; allowed: a state_dict saved with torch.save"
    head = _head(path)
    if (head == b"PK" and "operand" in text) or head in (b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return f"{path} is a pickle of a protocol that is not read safely; allowed: protocol 2, torch.save's own"
    if head in (b"PK", b"\x80\x02"):  # zip, or the pickle of before PyTorch 1.6
        return f"{path} is damaged or cut off ({_short(text) or type(error).__name__}); fetch it again"
    return f"{path} is not a PyTorch file (torch.save); nothing was read"


def _holds(path: Path, name: str) -> str:
    return (
        f"{path} holds a call of '{name}', which could run code or fill the memory: refused, nothing was executed; "
        "allowed: tensors, plain containers, argparse.Namespace"
    )


def _short(text: str, limit: int = 90) -> str:
    """PyTorch's own words without its advice, which tells people to load the file unsafely."""
    first = re.split(r"(?<=[a-z\])])\. |Please |Re-running|Weights only load failed", text.strip())[0].strip(" .:")
    return first if len(first) <= limit else first[:limit] + "..."


def _weights(content: Any, where: str, use_ema: bool) -> dict[Any, Any]:
    if not isinstance(content, dict):
        raise UserError(
            f"{where} holds a {type(content).__name__}, not weights; allowed: {{'model': state_dict}} or a state_dict"
        )
    content = _entries(content)
    if use_ema:
        if not isinstance(content.get("model_ema"), dict):
            held = ", ".join(str(key) for key in list(content)[:8])
            raise UserError(f"{where} holds no averaged weights 'model_ema'; it holds: {held}")
        return _entries(content["model_ema"])
    return next((_entries(content[key]) for key in _WRAPPERS if isinstance(content.get(key), dict)), content)


def _entries(mapping: dict[Any, Any]) -> dict[Any, Any]:
    """A plain dictionary: a pickle may overwrite what others have for methods, ``items`` for one."""
    return dict(dict.items(mapping))


def _check_expanded(weights: Mapping[str, Any], path: Path) -> None:
    """A tensor may repeat one stored value by a stride of 0, without an end."""
    for name, tensor in weights.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{path}: '{name}' {tuple(tensor.shape)} is larger than what is stored of it: refused")
    read = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    if read > 2 * path.stat().st_size:
        raise UserError(f"{path}: its {len(weights)} tensors are {read} bytes, the file {path.stat().st_size}: refused")


def _without_wrapper(name: str) -> str:
    """DistributedDataParallel puts ``module.`` before every name."""
    return name[len("module.") :] if name.startswith("module.") else name


def _as_array(torch: Any, tensor: Any) -> np.ndarray:
    whole = not (tensor.is_floating_point() or tensor.is_complex())
    return tensor.detach().to(torch.int64 if whole else torch.float32).contiguous().numpy()


def read_safetensors(path: str | Path) -> State:
    """Half precision becomes float32; bfloat16, unknown to NumPy, is the upper half of a float32."""
    file = existing_file(path)
    try:
        entries = safetensors.deserialize(file.read_bytes())
    except Exception as error:  # safetensors' own error class moved between versions
        raise UserError(f"{path} is not a .safetensors file, or is cut off ({_short(str(error))})") from error
    return {name: _decode(entry, f"{path}: {name}") for name, entry in entries}


def has_metadata(path: str | Path, key: str) -> bool:
    """Whether a ``.safetensors`` carries this entry; False where it is none (reading it will say so)."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return key in (file.metadata() or {})
    except Exception:  # safetensors' own error class moved between versions
        return False


_SAFE_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def _decode(entry: Mapping[str, Any], where: str) -> np.ndarray:
    kind = entry["dtype"]
    if kind not in _SAFE_TYPES:
        raise UserError(f"{where} has type {kind}; allowed: {', '.join(_SAFE_TYPES)}")
    array = np.frombuffer(entry["data"], _SAFE_TYPES[kind]).reshape(entry["shape"])
    if kind == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32 if kind.startswith("F") else np.int64)


def write_official(path: str | Path, state: State) -> None:
    """``.pth``: ``{'model': state_dict}`` as the authors publish; ``.safetensors``: the bare tensors."""
    arrays = {name: np.require(array, requirements="C") for name, array in state.items()}
    if Path(path).suffix == ".safetensors":
        with atomic(path) as temporary:
            save_file(arrays, temporary, metadata={"format": "pt"})
        return
    torch = import_torch()
    # copies: PyTorch warns about read-only arrays, and shares the memory of the others
    weights = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    with atomic(path) as temporary:
        torch.save({"model": weights}, temporary)
