"""One configuration's training step, built as train.py builds it and compiled for one device, at the true size.

    python step.py CONFIG DEVICE RANKS

`tries.py` starts it: stub libraries have to be there before MindSpore. On GPU the step runs three times, each report
read once the next step is started, as in training, and what the last time launches and copies is counted; on CPU it is
compiled only. The last line of stdout is the outcome as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

CLASSES = 1000  # where the configuration leaves them to the data
MARK = "outcome: "


class Compiled(Exception):
    """In place of a graph's first run."""


def main() -> None:
    path, device, ranks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    try:
        outcome = _try(path, device, ranks)
    except Exception as error:
        outcome = {"broke": f"{type(error).__name__}: {error}"}
    if outcome is not None:
        print(MARK + json.dumps(outcome), flush=True)
    if outcome and "broke" in outcome:
        os._exit(1)  # at once: other ranks have nothing to wait for


def _try(path: str, device: str, ranks: int) -> dict[str, Any] | None:
    """None from ranks that only have to be there: the stub NCCL waits for nobody."""
    from mindeit import config
    from mindeit.factory import environment
    from mindeit.runtime.cluster import Cluster

    launched = device == "Ascend" or (device == "GPU" and ranks > 1)
    argv = ["--config", path, "--device_target", device, "--distributed", str(launched)]
    if device == "CPU":
        argv += ["--batch_size", "2"]  # the front end does not care, but kernels prepare lists of a batch's size
    settings = config.parse(argv, description="")
    cluster = environment.start(settings)
    if device == "CPU":
        return _compile(settings, Cluster(0, ranks))
    return _run(settings, cluster) if cluster.main else None


def _compile(settings: Any, cluster: Any) -> dict[str, Any]:
    from mindspore import nn

    step, _ = _step(settings, cluster)

    def compile_only(cell: nn.Cell, *inputs: Any) -> None:
        cell.compile(*inputs)
        raise Compiled

    nn.Cell.__call__ = compile_only
    try:
        step()
    except Compiled:
        return {}
    raise RuntimeError("the step ran no graph")


def _run(settings: Any, cluster: Any) -> dict[str, Any]:
    from mindeit.runtime import device

    step, images = _step(settings, cluster)
    first = step()
    if device.target() != "GPU":
        return {}
    from device_audit import counters

    second = step()
    first.read()
    before = counters.read()
    step()
    second.read()
    counted = counters.summary(counters.read() - before)
    sizes = {"image_bytes": images.nbytes, "image_bytes_float32": 4 * images.size}
    return {**counted, **sizes, "planned_bytes": device.peak_memory()}


def _step(settings: Any, cluster: Any) -> tuple[Any, np.ndarray]:
    """What starts a step, and a batch's images."""
    from mindeit.data import Workers
    from mindeit.factory import datasets, optimization
    from mindeit.factory.student import build_student

    optimization.load_teacher = _random_teacher
    source = _one_black_image(_classes(settings))
    student, card, _ = build_student(settings, source)
    objective = optimization.build_objective(settings, student, card)
    stepper, _, path_draws = optimization.build_stepper(settings, objective, card, cluster)
    images, targets = next(iter(datasets.training_epochs(settings, source, card, cluster, Workers())(0, 0)))
    draws = path_draws(0, np.arange(len(images)))

    def step() -> Any:
        return stepper([(images, targets, draws)], 1e-3)

    return step, images


def _one_black_image(classes: int) -> Any:
    """A source whose only image fills batches of any size."""
    from mindeit.data import Source

    class Black(Source):
        labels, class_names, named = np.zeros(1, np.int32), tuple(map(str, range(classes))), False

        def read(self, index: int) -> Image.Image:
            return Image.new("RGB", (64, 64))

    return Black()


def _classes(settings: Any) -> int:
    return settings.model.num_classes or CLASSES


def _random_teacher(settings: Any) -> tuple[Any, Any]:
    """Without the official file."""
    from mindeit.models.registry import build, spec
    from mindeit.weights.card import card_for

    name = settings.loss.teacher
    row, classes = spec(name), _classes(settings)
    return build(name, num_classes=classes), card_for(row, classes, row.image_size)


if __name__ == "__main__":
    main()
