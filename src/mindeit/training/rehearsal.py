"""A dry run: everything is built, two updates and one evaluation batch are computed, nothing is saved."""
from __future__ import annotations

import time

from mindeit.runtime import device
from mindeit.training.loop import Training


def rehearse(training: Training) -> list[str]:
    """Lines that tell what a run would take. The first update compiles, the second tells the pace."""
    plan, stepper, cluster = training.plan, training.stepper, training.cluster
    batches = training.batches(0, 0)
    images = batches.batch_size * cluster.ranks * stepper.batches
    chunk, seconds = next(training.chunks(0, 0, batches, batches.positions)), []
    for _ in range(2):
        started = time.perf_counter()
        loss = stepper(chunk, plan.lr_at(0, 0.0)).read().loss
        seconds.append(time.perf_counter() - started)
    update, updates = seconds[-1], plan.batches // stepper.batches
    lines = [
        f"first update {seconds[0]:.1f} s with compiling, then {update:.2f} s each: {images / update:.1f} images/s, "
        f"loss {loss:.4f}",
        f"an epoch of {updates} updates about {span(update * updates)}, {plan.epochs} epochs about "
        f"{span(update * updates * plan.epochs)}, evaluation not counted",
    ]
    if plan.val_interval is not None:
        result = training.evaluate(only_batches=1)
        lines.append(f"evaluation batch of {result.images} images {result.seconds:.1f} s with compiling")
    held = device.peak_memory() / 2**30
    return [*lines, f"peak memory {held:.2f} GiB", "nothing was saved; leave out --dry_run to train"]


def span(seconds: float) -> str:
    """``95`` -> ``1 min 35 s``: the two largest units."""
    parts, rest = [], round(seconds)
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or (name == "s" and not parts):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])
