"""The official weight files: their table, and a cache that holds each one converted."""
from __future__ import annotations

import os
from pathlib import Path

from mindeit import checkpoint
from mindeit.convert.download import download, expected_hash, has_right_hash
from mindeit.errors import UserError
from mindeit.models.catalogue import CATALOGUE, Published
from mindeit.models.registry import spec

_COLUMNS = "{:<33} {:>9} {:>7} {:>6} {:>6}  {}"


def catalog_table() -> str:
    """One line per official file: model, parameters (M), GFLOPs, published top-1 and top-5, URL."""
    lines = [_COLUMNS.format("model", "params(M)", "GFLOPs", "top-1", "top-5", "URL")]
    for row in CATALOGUE.values():
        if row.published is not None:
            known = row.published
            top5 = "-" if known.top5 is None else f"{known.top5:.1f}"
            lines.append(_COLUMNS.format(row.name, known.params_m, known.gflops, f"{known.top1:.2f}", top5, known.url))
    return "\n".join(lines)


def cache_folder() -> Path:
    """``MINDEIT_HOME``, or ``~/.cache/mindeit``."""
    return Path(os.environ.get("MINDEIT_HOME") or "~/.cache/mindeit").expanduser()


def fetch_pretrained(name: str) -> Path:
    """The converted official weights of ``name``, downloaded and converted by the first call.

    ``MINDEIT_URL`` names a mirror: the folder the official files lie in, in place of the authors'.
    """
    published = spec(name).published
    if published is None:
        raise UserError(f"there is no official file of '{name}'; python convert_pt2ms.py --list shows those there are")
    folder = cache_folder()
    converted = folder / f"{Path(published.file).stem}.ckpt"
    if converted.exists():
        return converted
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the cache {folder} (MINDEIT_HOME): {error.strerror}") from None
    from filelock import FileLock  # comes with PyTorch, which reading the file needs as well

    with FileLock(folder / f".{published.file}.lock"):  # several processes may start at once
        if not converted.exists():
            _convert(_official_file(published, folder), name, converted)
    return converted


def _official_file(published: Published, folder: Path) -> Path:
    """The cached file, put there by us or by the user, or a new download."""
    target = folder / published.file
    if not target.exists():
        download(_url(published), target)
    elif not has_right_hash(target, target.name):
        raise UserError(f"{target} is damaged: its SHA-256 does not begin with {expected_hash(target.name)}; delete it")
    return target


def _url(published: Published) -> str:
    mirror = os.environ.get("MINDEIT_URL")
    return f"{mirror.rstrip('/')}/{published.file}" if mirror else published.url


def _convert(source: Path, name: str, target: Path) -> None:
    from mindeit.convert.load import load_weights

    state, card = load_weights(source, model=name)
    checkpoint.write(target, state, card)
