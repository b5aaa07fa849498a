"""The digest that an exported file carries: of every byte of it, of its description and of the weights beside it."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mindeit import typed
from mindeit.errors import UserError
from mindeit.files import write_json
from mindeit.weights.integrity import DIGEST_KEY, refuse_damaged

LENGTH = 64
EMPTY = "0" * LENGTH  # in an ONNX file's metadata, until `write_digest`
_PLACE = DIGEST_KEY.encode() + b"\x12" + bytes([LENGTH])  # how protobuf writes that entry, up to its value


def sidecar(path: Path) -> Path:
    """The file beside ``path`` with its description, for formats without metadata."""
    return Path(f"{path}.json")


def weights_beside(path: Path) -> Path:
    """Where the parameters of a model lie that is too large for one file."""
    return Path(f"{path}.data")


def write_digest(path: Path) -> None:
    """Write the digest into the ONNX file itself, or into the description beside the file."""
    if path.suffix == ".onnx":
        with _mapped(path, mmap.ACCESS_WRITE) as content:
            at = content.rfind(_PLACE) + len(_PLACE)
            content[at : at + LENGTH] = _of_onnx(path, content, at).encode()
    else:
        said = typed.parse(sidecar(path).read_bytes(), sidecar(path))
        write_json(sidecar(path), {**said, DIGEST_KEY: _of_pair(path, said)})


def check_digest(path: Path, said: Mapping[str, Any]) -> bool:
    """Refuse a file that was changed since; False: it carries no digest. ``said``: the description beside it, which an
    ONNX file has inside."""
    if path.suffix == ".onnx":
        with _mapped(path, mmap.ACCESS_READ) as content:
            at = content.rfind(_PLACE) + len(_PLACE)
            held = content[at : at + LENGTH].decode("latin-1") if at >= len(_PLACE) else None
            found = held and _of_onnx(path, content, at)
    else:
        held = said.get(DIGEST_KEY)
        found = held and _of_pair(path, {key: value for key, value in said.items() if key != DIGEST_KEY})
    if held != found:
        _check_weights_are_there(path)
        refuse_damaged(path, "content does")
    return held is not None


def _check_weights_are_there(path: Path) -> None:
    beside = weights_beside(path)
    with _mapped(path, mmap.ACCESS_READ) as content:
        if not os.path.exists(beside) and content.find(beside.name.encode()) >= 0:
            raise UserError(f"{path}: its weights {beside.name} are missing, they belong beside it")


@contextmanager
def _mapped(path: Path, access: int) -> Iterator[mmap.mmap]:
    with (
        path.open("r+b" if access == mmap.ACCESS_WRITE else "rb") as file,
        mmap.mmap(file.fileno(), 0, access=access) as content,
    ):
        yield content


def _of_onnx(path: Path, content: mmap.mmap, at: int) -> str:
    """As if the digest in it were not there yet."""
    with memoryview(content) as view:
        found = hashlib.sha256(view[:at])
        found.update(EMPTY.encode())
        found.update(view[at + LENGTH :])
    return _with_weights(found, path)


def _of_pair(path: Path, said: Mapping[str, Any]) -> str:
    found = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    with _mapped(path, mmap.ACCESS_READ) as content:
        found.update(content)
    return _with_weights(found, path)


def _with_weights(found: Any, path: Path) -> str:
    beside = weights_beside(path)
    if os.path.exists(beside):  # False for a name that is too long as well
        with _mapped(beside, mmap.ACCESS_READ) as content:
            found.update(content)
    return found.hexdigest()
