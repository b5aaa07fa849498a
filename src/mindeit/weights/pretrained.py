"""The official weight files: a cache that holds each one converted."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from filelock import FileLock

from mindeit.errors import UserError
from mindeit.files import cache_folder
from mindeit.models.registry import spec
from mindeit.models.spec import Published
from mindeit.weights import checkpoint
from mindeit.weights.download import download, expected_hash, has_right_hash
from mindeit.weights.load import load_weights
from mindeit.weights.torch_files import import_torch


def fetch_pretrained(name: str, image_size: int | None = None) -> Path:
    """The converted official weights of ``name``, downloaded and converted by the first call.

    Of several files it is the first that was made for images of ``image_size``, else the first of all.
    ``MINDEIT_URL`` names a mirror: the folder the official files lie in, in place of the authors'.
    """
    files = spec(name).files
    if not files:
        raise UserError(f"there is no official file of '{name}'; mindeit models shows those there are")
    published = next((file for file in files if file.image_size == image_size), files[0])
    folder = cache_folder()
    converted = folder / f"{Path(published.file).stem}.ckpt"
    if converted.exists():
        return converted
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the cache {folder} (MINDEIT_HOME): {error.strerror}") from None
    import_torch()  # said before a long download
    with FileLock(folder / f".{published.file}.lock"):  # several processes may start at once
        if not converted.exists():
            _convert(published, folder, name, converted)
    return converted


def _convert(published: Published, folder: Path, name: str, target: Path) -> None:
    file = folder / published.file
    ours = not file.exists()  # else it was put there, and is not ours to delete
    if ours:
        download(_url(published), file)
    elif not has_right_hash(file, file.name):
        raise UserError(f"{file} is damaged: its SHA-256 does not begin with {expected_hash(file.name)}; delete it")
    print(f"converting {file}", file=sys.stderr, flush=True)
    try:
        state, card = load_weights(file, model=name, image_size=published.image_size)
    except UserError as error:
        if not ours:
            raise UserError(f"{error}; delete {file} if it is not the official file") from None
        file.unlink()
        raise UserError(f"{_url(published)} gives no weights of {name}, what came was thrown away: {error}") from None
    checkpoint.write(target, state, card)


def _url(published: Published) -> str:
    mirror = os.environ.get("MINDEIT_URL")
    return f"{mirror.rstrip('/')}/{published.file}" if mirror else published.url
