"""Device, ranks and workers."""

from __future__ import annotations

import hashlib
import json
import os
import sys

from mindeit.config import Config
from mindeit.data import Processes, Threads, Workers
from mindeit.data.processes import AVAILABLE
from mindeit.kernels.native import bfloat16
from mindeit.kernels.native.library import library
from mindeit.runtime import cluster, device

_THREADS_AT_ONCE = 4  # Python's lock lets hardly more of them compute: each holds it a quarter of its time


def start(config: Config) -> cluster.Cluster:
    """Set up device, mode, seeds and ranks, in that order."""
    run = config.run
    if run.amp_level == "bf16" and run.device_target == "CPU":
        bfloat16.require()
    device.setup(run.device_target, device_id=run.device_id, graph=run.mode == 0, compile_cache=_compile_cache(config))
    device.seed(run.seed)
    return join(config)


def join(config: Config) -> cluster.Cluster:
    """Find the other ranks, and say the configuration's notes once. A process alone needs no MindSpore for it."""
    ranks = cluster.start(config.run.distributed, config.run.device_target)
    if ranks.main:
        for note in config.notes:
            print(f"note: {note}", file=sys.stderr, flush=True)
    return ranks


def _compile_cache(config: Config) -> str | None:
    """A folder for this configuration alone, because MindSpore identifies a cached graph by its number only.

    The graph names the library that its operators come from.
    """
    if config.train.compile_cache is None:
        return None
    operators = library().form if config.run.device_target == "CPU" else ""
    text = json.dumps([config.flat(), operators], sort_keys=True, default=str)
    return os.path.join(config.train.compile_cache, hashlib.sha256(text.encode()).hexdigest()[:16])


def data_workers(config: Config, ranks: cluster.Cluster) -> Workers:
    """The workers that prepare batches: by default one for each core of this rank, processes if more than four."""
    return workers(config.run.num_parallel_workers or _cores(ranks.local_ranks), config.run.python_multiprocessing)


def workers(count: int | None = None, processes: bool | None = None) -> Workers:
    count = count or _cores(1)
    if processes is None:
        processes = AVAILABLE and count > _THREADS_AT_ONCE
    return Processes(count) if processes else Threads(count)


def _cores(ranks: int) -> int:
    """Of this rank, beside the others of this machine; the launcher may have bound it to some of them."""
    machine = os.cpu_count() or 1
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    return max(1, min(bound, machine // ranks))
