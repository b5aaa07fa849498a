"""export.py --precision int8: kept if it knows as many held-out images as the float32 file."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from mindspore import nn

from mindeit.data import Division, EvalTransform, Source, number_as, open_source
from mindeit.data.images import decode_rgb, is_image
from mindeit.data.loader import evaluation_batches
from mindeit.data.split import beside
from mindeit.errors import UserError
from mindeit.export import int8
from mindeit.export.exported import Exported
from mindeit.export.file_digest import write_digest
from mindeit.export.metadata import LOGITS, Description
from mindeit.export.writer import ExportMismatch, check_outputs, write
from mindeit.factory.environment import workers
from mindeit.files import atomic_group
from mindeit.runtime.progress import progress

CALIBRATED_BY = 128  # images; more change little
TOLERANCE = 0.5  # points
_BATCH, _CALLS = 16, 15


@dataclass(frozen=True)
class Figures:
    """Of one file: share of right answers (None: not measured), megabytes, milliseconds a call of one batch."""

    accuracy: float | None
    megabytes: float
    milliseconds: float

    def line(self, name: str, images: int) -> str:
        known = "" if self.accuracy is None else f"{self.accuracy:.2f} % of {images} images right, "
        return f"{name + ':':8} {known}{self.megabytes:.1f} MB, {self.milliseconds:.1f} ms a call"


class Int8Export:
    """Opens what the options name before any work, then exports."""

    def __init__(self, options: Any, checkpoint: str) -> None:
        self._options = options
        self._calibration = _images_below(options.calibrate) if options.calibrate else None
        self._source: Source | None = None
        if not options.unchecked:
            division = Division(share=1, file=beside(checkpoint), needed=False)
            self._source = open_source(options.dataset or "image_folder", options.data_dir, "val", division=division)

    def __call__(self, model: nn.Cell, description: Description, target: str) -> None:
        """`ExportMismatch`, and nothing is written, if more accuracy is lost than --tolerance allows."""
        card, source = description.card, self._source
        check_outputs(model, description)
        if source is not None:
            if LOGITS not in description.kinds:
                raise UserError("int8 is kept by its accuracy, and there are no logits; allowed: --unchecked")
            where = self._options.data_dir or self._options.dataset
            number_as(source, card.num_classes, card.class_names, where=where, other="the checkpoint")
        target_folder = Path(target).absolute().parent
        with atomic_group(target) as temporary, TemporaryDirectory(prefix=".float32-", dir=target_folder) as folder:
            whole = Path(folder, "float32.onnx")
            write(model, description, whole, "ONNX")
            how = int8.quantize(whole, temporary, self._batches(Exported(whole)))
            int8.annotate(temporary, {"precision": "int8"})
            write_digest(temporary)
            found = _figures({"float32": whole, "int8": temporary}, source)
            images = 0 if source is None else len(source)
            print("\n".join(figures.line(name, images) for name, figures in found.items()), flush=True)
            self._check(found)
            int8.annotate(temporary, {"int8": _told(how, found, images)})
            write_digest(temporary)
            said = replace(description, precision="int8").as_dict()["input"]
        print(f"wrote {target}: {card.model}, {found['int8'].megabytes:.1f} MB, {said}")

    def _batches(self, file: Exported) -> Iterator[np.ndarray] | None:
        """The images to calibrate with, as the file takes them."""
        return None if self._calibration is None else _prepared(file, self._calibration)

    def _check(self, found: dict[str, Figures]) -> None:
        before, after = found["float32"].accuracy, found["int8"].accuracy
        tolerance = TOLERANCE if self._options.tolerance is None else self._options.tolerance
        if before is not None and after is not None and before - after > tolerance:
            raise ExportMismatch(
                f"int8 loses {before - after:.2f} points of accuracy, more than the {tolerance:g} of --tolerance; "
                f"{'allowed is' if self._calibration else '--calibrate FOLDER may keep more, and so does'} --precision "
                "fp16"
            )


def _images_below(folder: str) -> list[str]:
    """Up to `CALIBRATED_BY`, from all over a folder of images or of folders of them."""
    found = sorted(os.path.join(place, name) for place, _, names in os.walk(folder) for name in names if is_image(name))
    if not found:
        raise UserError(f"no images in {folder}, with which --calibrate is to fix the ranges")
    return found[:: -(-len(found) // CALIBRATED_BY)]


def _prepared(file: Exported, paths: list[str]) -> Iterator[np.ndarray]:
    transform, size = _transform(file), file.description.batch or 1
    images = (transform(decode_rgb(path, path)) for path in paths)
    while part := list(islice(images, size)):
        yield file.as_taken(np.stack([*part, *[part[-1]] * (size - len(part))]))


def _transform(file: Exported) -> EvalTransform:
    card = file.card
    return EvalTransform(card.image_size, card.crop_pct, card.mean, card.std, card.interpolation)


def _figures(paths: dict[str, Path], source: Source | None) -> dict[str, Figures]:
    files = {name: Exported(path) for name, path in paths.items()}
    right = dict.fromkeys(files, 0)
    if source is not None:
        batches = evaluation_batches(source, _transform(files["float32"]), _BATCH, workers=workers())
        for images, labels in progress(batches, len(batches), "int8", images=len(source)):
            for name, file in files.items():
                right[name] += int((file(images).argmax(1) == labels).sum())
    accuracy = {name: None if source is None else 100 * count / len(source) for name, count in right.items()}
    times = _times(files)
    return {name: Figures(accuracy[name], path.stat().st_size / 1e6, times[name]) for name, path in paths.items()}


def _times(files: dict[str, Exported]) -> dict[str, float]:
    """Of one call, in turns: other work on the machine meets both."""
    description = files["float32"].description
    side = description.card.image_size
    images = np.zeros((description.batch or 1, 3, side, side), np.float32)
    taken: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(_CALLS):
        for name, file in files.items():
            start = time.perf_counter()
            file.outputs(images)
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in taken.items()}


def _told(how: str, found: dict[str, Figures], images: int) -> str:
    """What the metadata say of the file's making."""
    measured = {
        f"{name}_{what}": round(value, 4)
        for name, figures in found.items()
        for what, value in vars(figures).items()
        if value is not None
    }
    return json.dumps({"activations": how, "images": images, **measured})
