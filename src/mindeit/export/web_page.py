"""A folder that is a web page: an exported ONNX file, and what classifies images with it in the browser.

Nothing in it asks another place for anything: onnxruntime-web, from npm, lies in the folder too.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mindeit.errors import UserError
from mindeit.export.exported import Exported
from mindeit.export.metadata import ATTENTION
from mindeit.files import PathLike, cache_folder
from mindeit.weights.class_names import class_names
from mindeit.weights.download import download

MODEL, PAGE = "model.onnx", "index.html"
TITLE = "What is in this image?"
_ASSETS = Path(__file__).with_name("web")
_VERSION = "1.30.0"
_PACKAGE = f"onnxruntime-web-{_VERSION}"
_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
_URL = f"https://registry.npmjs.org/onnxruntime-web/-/{_PACKAGE}.tgz"
_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_FILTERS = ("bilinear", "bicubic", "lanczos")  # those of web/transform.js


def check_folder(folder: PathLike) -> None:
    """It is new or empty, and can be made."""
    path = Path(folder)
    if os.path.exists(path) and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"command line: --web is {folder}, which exists; allowed: a new or an empty folder")
    above = next(parent for parent in path.absolute().parents if os.path.exists(parent))
    if not os.access(above, os.W_OK):
        raise UserError(f"command line: --web is {folder}, but {above} cannot be written to")


def runtime_package() -> Path:
    """onnxruntime-web as npm has it, fetched once."""
    path = cache_folder() / f"{_PACKAGE}-{_SHA256}.tgz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        download(_URL, path)
    return path


@contextmanager
def made(folder: PathLike, title: str | None) -> Iterator[None]:
    """Around what writes `MODEL` into ``folder``: adds the page, or takes all of it away after a failure.

    The page itself comes last, so that none is there whose parts are not.
    """
    path, package = Path(folder), runtime_package()
    existed = path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
        if (path / MODEL).exists():
            _add_page(path, package, title or TITLE)
            print(f"page: {path}/{PAGE}; look at it with: python -m http.server --directory {path}", flush=True)
    finally:
        if not (path / PAGE).exists():
            shutil.rmtree(path)
            if existed:
                path.mkdir()


def _add_page(path: Path, package: Path, title: str) -> None:
    text = json.dumps(card_of(path / MODEL, title), ensure_ascii=False, indent=1)
    (path / "model.json").write_text(text, "utf-8")
    (path / "runtime").mkdir()
    with tarfile.open(package) as archive:
        for name in _RUNTIME:
            content = archive.extractfile(f"package/dist/{name}")
            assert content is not None
            (path / "runtime" / name).write_bytes(content.read())
    for asset in sorted(_ASSETS.iterdir(), key=lambda asset: asset.name == PAGE):
        shutil.copyfile(asset, path / asset.name)


def card_of(model: Path, title: str) -> dict[str, Any]:
    """What the page has to know of the model."""
    file = Exported(model)
    card, description = file.card, file.description
    if card.interpolation not in _FILTERS:
        raise UserError(
            f"interpolation is '{card.interpolation}', which the page does not know; allowed: {', '.join(_FILTERS)}"
        )
    size = model.stat().st_size
    return {
        "title": title,
        "model": card.model,
        "file": model.name,
        "bytes": size,
        "size": f"{size / 1e6:.1f} MB",
        "input": "images",
        "attention": ATTENTION in description.outputs,
        "class_names": class_names(card),
        "image_size": card.image_size,
        "resize_to": int(card.image_size / card.crop_pct),
        "mean": card.mean,
        "std": card.std,
        "interpolation": card.interpolation,
        "temperature": card.temperature,
    }
