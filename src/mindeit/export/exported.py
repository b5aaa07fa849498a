"""Runs exported files: images in, logits out, by the runtime of their format."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Callable

import numpy as np

from mindeit import typed
from mindeit.errors import UserError
from mindeit.export.file_digest import check_digest, sidecar, weights_beside
from mindeit.export.metadata import ATTENTION, ATTENTION_HEADS, FEATURES, Description
from mindeit.files import PathLike, existing_file
from mindeit.runtime import device
from mindeit.weights.card import check_against_card
from mindeit.weights.integrity import check_finite, warn_unchecked

Run = Callable[[np.ndarray, Sequence[int]], Sequence[np.ndarray]]  # of these outputs; of all where none is named
SUFFIXES = (".mindir", ".onnx")
PIXELS = 2 * 224 * 224  # at a time on a CPU: what two images become stays in its caches, what 32 become does not
_ONNX_TYPES: dict[type, str] = {np.uint8: "tensor(uint8)", np.float32: "tensor(float)"}


def is_exported(path: PathLike) -> bool:
    return Path(path).suffix in SUFFIXES


class Exported:
    """A file that export.py wrote. ``card`` says how to prepare images. ``check``: refuse a changed file."""

    def __init__(self, path: PathLike, *, check: bool = True) -> None:
        self.path = existing_file(path)
        on_cpu = self.path.suffix == ".onnx"
        self._compute, self.description = (_open_onnx if on_cpu else _open_mind_ir)(self.path, check)
        self.card = self.description.seen
        self._piece = max(1, PIXELS // self.card.image_size**2) if on_cpu else None
        self.compiles_each_batch = not on_cpu and self.description.batch is None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(batch, 3, S, S), normalised by ``card`` -> (batch, num_classes), or features where there are no classes."""
        return self.common(images, self.description.main)

    def common(self, images: np.ndarray, kind: str) -> np.ndarray:
        """Logits or features: the mean, where the file has them of two heads."""
        results = self.outputs(images, kind=kind)
        return sum(results[1:], results[0]) / len(results) if len(results) > 1 else results[0]

    def gives(self, kind: str) -> bool:
        return kind in self.description.kinds

    def check_gives(self, kind: str, remedy: str) -> None:
        if not self.gives(kind):
            raise UserError(f"{self.path} gives {' and '.join(self.description.kinds)} only; {remedy}")

    def outputs(self, images: np.ndarray, at_once: int | None = None, kind: str | None = None) -> list[np.ndarray]:
        """Every output of the file, or those of one ``kind``, for any number of images.

        A file with a fixed batch runs as often as needed. A file for any batch runs with ``at_once`` images, by default
        as many as are fastest on the device.
        """
        images = self.as_taken(images)
        count = len(images)
        size = self.description.batch or at_once or self._piece or count
        if self.description.batch and count % size:
            images = np.concatenate([images, np.zeros((size - count % size, *images.shape[1:]), images.dtype)])
        names = self.description.outputs_of(kind) if kind else self.description.outputs
        if kind:
            self.check_gives(kind, f"export it with --outputs {kind}")
        parts = [self._run(images[start : start + size], names) for start in range(0, count, size)]
        return [check_finite(np.concatenate(part)[:count], self.path) for part in zip(*parts)]

    def as_taken(self, images: np.ndarray) -> np.ndarray:
        """(batch, 3, S, S), prepared by ``card`` -> the file's own input."""
        if not self.description.preprocess:
            return images
        return np.ascontiguousarray(np.rint(images).astype(np.uint8).transpose(0, 2, 3, 1))

    def _run(self, images: np.ndarray, names: Sequence[str]) -> Sequence[np.ndarray]:
        whole = self.description.outputs
        try:
            results = self._compute(images, [] if names == whole else [whole.index(name) for name in names])
        except Exception as error:  # the runtimes' exceptions have no common base
            raise UserError(
                f"{self.path}: cannot be run on {images.dtype} {images.shape} ({_first_line(error)}); "
                "export it anew (export.py)"
            ) from None
        classes, given = self.description.card.num_classes, [result.shape for result in results]
        if len(given) != len(names) or not all(map(partial(_fits, len(images), classes), names, given)):
            raise UserError(
                f"{self.path}: gives {given} for {len(images)} images, but describes itself as giving "
                f"{', '.join(names)} of {classes or 'any number of'} classes"
            )
        return results


def _fits(count: int, classes: int, name: str, shape: tuple[int, ...]) -> bool:
    if name in (ATTENTION, ATTENTION_HEADS):
        return len(shape) == (3 if name == ATTENTION else 4) and shape[0] == count and shape[-1] == shape[-2]
    return len(shape) == 2 and shape[0] == count and (name.endswith(FEATURES) or shape[1] == (classes or shape[1]))


def open_exported(path: PathLike, asked: Mapping[str, Any], *, use_ema: bool = False, check: bool = True) -> Exported:
    """``asked``: fields of `ModelCard` that the file has to agree with."""
    file = Exported(path, check=check)
    if use_ema:
        raise UserError(f"{path} holds one set of weights; use_ema is for training checkpoints")
    check_against_card(file.description.card, asked, path, "export anew (export.py)")
    return file


def _open_onnx(path: Path, check: bool) -> tuple[Run, Description]:
    import onnxruntime  # optional: MindIR does without

    unchecked = check and not check_digest(path, {})
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # no idle threads that take a core
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        texts = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError:
        raise UserError(f"{path}: its metadata are not UTF-8, so not what export.py writes") from None
    except Exception as error:  # its exceptions have no common base
        raise UserError(f"{path}: onnxruntime cannot load it ({_first_line(error)})") from None
    description = Description.of(texts, path)
    taken, wanted = session.get_inputs(), _ONNX_TYPES[description.dtype]
    if [(tensor.type, len(tensor.shape)) for tensor in taken] != [(wanted, 4)]:
        given = ", ".join(f"{tensor.type} {tuple(tensor.shape)}" for tensor in taken)
        raise UserError(
            f"{path}: takes {given}, but describes itself as taking {wanted} {description.shape}; export "
            "it anew (export.py)"
        )
    if unchecked:
        warn_unchecked(path)
    names = [given.name for given in session.get_outputs()]

    def run(images: np.ndarray, places: Sequence[int]) -> list[np.ndarray]:
        return session.run([names[place] for place in places] or None, {taken[0].name: images})

    return run, description


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _open_mind_ir(path: Path, check: bool) -> tuple[Run, Description]:
    import mindspore as ms  # an ONNX file does without

    beside = sidecar(path)
    if not os.path.exists(beside):  # False for a name that is too long as well
        raise UserError(f"{path}: its description {beside} is missing; export.py writes both")
    said = typed.parse(existing_file(beside).read_bytes(), beside)
    description = Description.of(said, beside)
    unchecked = check and not check_digest(path, said)
    try:
        graph = ms.nn.GraphCell(ms.load(str(path)))
    except (RuntimeError, ValueError, TypeError):
        raise UserError(
            f"{path}: MindSpore cannot load it: not a MindIR file, or damaged, or a large one without its "
            f"{weights_beside(path).name}"
        ) from None
    if unchecked:
        warn_unchecked(path)

    def run(images: np.ndarray, places: Sequence[int]) -> list[np.ndarray]:
        with device.one_at_a_time:
            results = graph(ms.Tensor(images))
            results = results if isinstance(results, tuple) else (results,)
            return [results[place].asnumpy().copy() for place in places or range(len(results))]

    return run, description
