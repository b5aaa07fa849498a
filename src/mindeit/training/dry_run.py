"""A dry run: everything is built, two updates and one evaluation batch are computed, nothing is saved."""

from __future__ import annotations

import time

import numpy as np

from mindeit.data import EvaluationBatches
from mindeit.runtime import device
from mindeit.runtime.cluster import Cluster
from mindeit.runtime.log import span
from mindeit.runtime.progress import progress
from mindeit.training.loop import Training


def dry_run(training: Training) -> list[str]:
    """Lines on the time and memory that a run would take. The first update compiles, the second is timed.

    All evaluation images are read, because an unreadable one would otherwise stop a run after its first epoch. The
    order is that of a run, so that compiled graphs can be kept for it.
    """
    plan, stepper, cluster, lines = training.plan, training.stepper, training.cluster, []
    if training.evaluator is not None:
        result = training.evaluator(only_batches=1)
        lines += [
            _read_all(training.evaluator.batches, cluster),
            f"evaluation batch of {result.images} images {result.seconds:.1f} s with compiling",
        ]
    batches = training.batches(0, 0)
    images = batches.batch_size * cluster.ranks * stepper.batches
    chunk, seconds = next(training.chunks(0, 0, batches, batches.positions)), []
    for _ in range(2):
        started = time.perf_counter()
        loss = stepper(chunk, plan.lr_at(0, 0.0)).read().loss
        seconds.append(time.perf_counter() - started)
    update, updates = seconds[-1], plan.batches // stepper.batches
    lines += [
        f"first update {seconds[0]:.1f} s with compiling, then {update:.2f} s each: {images / update:.1f} images/s, "
        f"loss {loss:.4f}",
        f"an epoch of {updates} updates about {span(update * updates)}, {plan.epochs} epochs about "
        f"{span(update * updates * plan.epochs)}, evaluation not counted",
    ]
    held = device.peak_memory() / 2**30
    return [*lines, f"peak memory {held:.2f} GiB", "nothing was saved; leave out --dry_run to train"]


def _read_all(batches: EvaluationBatches, cluster: Cluster) -> str:
    started = time.perf_counter()
    for _ in progress(batches, len(batches), "read held-out images", images=batches.images, shown=cluster.main):
        pass
    left_out = int(cluster.total(np.array([len(batches.bad)]))[0])
    seconds = time.perf_counter() - started
    return f"{batches.images - left_out} of {batches.images} held-out images can be read, in {seconds:.1f} s"
