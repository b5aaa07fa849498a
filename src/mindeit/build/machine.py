"""Device, ranks and workers."""
from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from mindeit.config import Config
    from mindeit.runtime.cluster import Cluster


def machine(config: Config) -> Cluster:
    """Settle device, mode, seeds and ranks, in that order."""
    from mindeit.runtime import cluster, device

    run = config.run
    device.setup(
        run.device_target, device_id=run.device_id, graph=run.mode == 0, compile_cache=_compile_cache(config)
    )
    device.seed(run.seed)
    return cluster.start(run.distributed, run.device_target)


def _compile_cache(config: Config) -> Optional[str]:
    """A folder of this configuration alone: MindSpore finds a graph by its number, so others must not lie there."""
    if config.train.compile_cache is None:
        return None
    text = json.dumps(config.flat(), sort_keys=True, default=str)
    return os.path.join(config.train.compile_cache, hashlib.sha256(text.encode()).hexdigest()[:16])


def workers(config: Config) -> int:
    """Threads that prepare batches: one a core, eight at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return config.run.num_parallel_workers or min(8, cores)
