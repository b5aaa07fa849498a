"""Exported files at work: images in, logits out, whichever runtime computes them."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from mindeit import typed
from mindeit.card import believe
from mindeit.deploy.metadata import Description
from mindeit.errors import UserError
from mindeit.files import PathLike, existing_file

Run = Callable[[np.ndarray], Sequence[np.ndarray]]
SUFFIXES = (".mindir", ".onnx")
PIXELS = 2 * 224 * 224  # at a time on a CPU: what two pictures become stays in its caches, what 32 become does not


def is_exported(path: PathLike) -> bool:
    return Path(path).suffix in SUFFIXES


def sidecar(path: PathLike) -> Path:
    """Where a MindIR file's description lies."""
    return Path(f"{path}.json")


def weights_beside(path: PathLike) -> Path:
    """Where the parameters of a model lie that is too large for one file."""
    return Path(f"{path}.data")


class Exported:
    """A file that export.py wrote. ``card`` is what to prepare pictures by."""

    def __init__(self, path: PathLike) -> None:
        self.path = existing_file(path)
        on_cpu = self.path.suffix == ".onnx"
        self._run, self.description = (_open_onnx if on_cpu else _open_mind_ir)(self.path)
        self.card = self.description.seen
        self._piece = max(1, PIXELS // self.card.image_size**2) if on_cpu else None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(batch, 3, S, S), normalised by ``card`` -> (batch, num_classes): the mean, where the file has two heads."""
        results = self.outputs(images)
        return sum(results[1:], results[0]) / len(results) if len(results) > 1 else results[0]

    def outputs(self, images: np.ndarray, at_once: Optional[int] = None) -> list[np.ndarray]:
        """Every output of the file, for any number of images.

        A file of a fixed batch runs as often as it takes, one of any batch with ``at_once`` images, or as many as the
        device is fastest with.
        """
        if self.description.preprocess:
            images = np.ascontiguousarray(np.rint(images).astype(np.uint8).transpose(0, 2, 3, 1))
        count = len(images)
        size = self.description.batch or at_once or self._piece or count
        if self.description.batch and count % size:
            images = np.concatenate([images, np.zeros((size - count % size, *images.shape[1:]), images.dtype)])
        parts = [self._run(images[start : start + size]) for start in range(0, count, size)]
        return [np.concatenate(part)[:count] for part in zip(*parts)]


def open_exported(path: PathLike, asked: Mapping[str, Any], *, use_ema: bool = False) -> Exported:
    """For pictures and classes. ``asked``: fields of `ModelCard` that the file has to agree with."""
    file = Exported(path)
    if use_ema:
        raise UserError(f"{path} holds one set of weights; use_ema is for training checkpoints")
    believe(file.description.card, asked, path, "export anew (export.py)")
    if not file.card.num_classes:
        raise UserError(f"{path} gives features, and classes are needed; export it without --num_classes 0")
    return file


def _open_onnx(path: Path) -> tuple[Run, Description]:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # no idle threads that take a core
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: onnxruntime cannot load it ({reason})") from None
    description = Description.of(session.get_modelmeta().custom_metadata_map, path)
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images}), description


def _open_mind_ir(path: Path) -> tuple[Run, Description]:
    import mindspore as ms
    from mindspore import Tensor, nn

    beside = sidecar(path)
    if not beside.exists():
        raise UserError(f"{path}: its description {beside} is missing; export.py writes both")
    description = Description.of(typed.parse(existing_file(beside).read_bytes(), beside), beside)
    try:
        graph = nn.GraphCell(ms.load(str(path)))
    except (RuntimeError, ValueError, TypeError):
        raise UserError(f"{path}: MindSpore cannot load it: not a MindIR file, or damaged, or a large one without its "
                        f"{weights_beside(path).name}") from None

    def run(images: np.ndarray) -> list[np.ndarray]:
        results = graph(Tensor(images))
        return [each.asnumpy() for each in (results if isinstance(results, tuple) else (results,))]

    return run, description
