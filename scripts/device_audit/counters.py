"""What the stub CUDA libraries counted, read inside the process that uses them."""

from __future__ import annotations

import ctypes
import json
import os
import re
from collections import Counter
from pathlib import Path

TRAFFIC = ("h2d_copies", "h2d_bytes", "d2h_copies", "d2h_bytes", "d2d_copies", "d2d_bytes", "memsets", "own_kernels")
# Calls of cuBLAS, cuDNN and MindSpore's kernels that prepare or ask, and put no work on the device.
_PREPARING = re.compile(r"Create|Destroy|Set[A-Z]|Get[A-Z]|CalStride|Version")
_WORKING = (
    "libcublas.so.11",
    "libcudnn.so.8",
    "libcuda_ops.so.11",
    "libcufft.so.10",
    "libcurand.so.10",
    "libcusolver.so.11",
    "libcusparse.so.11",
)


def read() -> Counter[tuple[str, str]]:
    """(library, function) -> calls so far; of copies also the bytes."""
    folder = Path(os.environ["AUDIT_STUBS"])
    calls: Counter[tuple[str, str]] = Counter()
    for library, names in json.loads((folder / "functions.json").read_text()).items():
        loaded = ctypes.CDLL(str(folder / library))
        calls.update({(library, name): n for name, n in zip(names, _array(loaded, "stub_counts", len(names)))})
        calls.update({("", name): n for name, n in zip(TRAFFIC, _array(loaded, "stub_traffic", len(TRAFFIC)))})
    return calls


def _array(library: ctypes.CDLL, name: str, length: int) -> list[int]:
    return list((ctypes.c_long * length).in_dll(library, name))


def summary(calls: Counter[tuple[str, str]]) -> dict[str, int]:
    """Launches are kernels, calls of libraries that compute, collectives and memsets; copies stand beside them."""
    traffic = {name: calls["", name] for name in TRAFFIC}
    computing = sum(n for (library, name), n in calls.items() if library in _WORKING and not _PREPARING.search(name))
    driver = sum(n for (_, name), n in calls.items() if name.startswith(("cuLaunchKernel", "cudaLaunchKernel")))
    collectives = sum(
        n
        for (library, name), n in calls.items()
        if library == "libnccl.so.2"
        and name in ("ncclAllReduce", "ncclBroadcast", "ncclAllGather", "ncclReduceScatter", "ncclReduce")
    )
    synchronisations = sum(n for (_, name), n in calls.items() if name.endswith("Synchronize"))
    launches = computing + driver + collectives + traffic["own_kernels"] + traffic["memsets"]
    traffic.pop("own_kernels")
    return {"launches": launches, **traffic, "synchronisations": synchronisations, "collectives": collectives}
