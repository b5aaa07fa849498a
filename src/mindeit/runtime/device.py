"""Device, mode and seeds. No other module asks MindSpore about its device.

MindSpore is imported where it is needed, because an exported ONNX file predicts without it.
"""

from __future__ import annotations

import ctypes
import random
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from mindeit.errors import UserError
from mindeit.runtime.libraries import DRIVERS, WANTED, ascend_chip, cuda_toolkit_problem, missing_libraries

if TYPE_CHECKING:
    from mindspore import nn

TARGETS = ("CPU", "GPU", "Ascend")
_graphs: dict[str, bool | None] = {"wanted": None}  # not set up
# Two threads that compile or run with MindSpore at once end the process; the mode is the process' own, too.
one_at_a_time = threading.RLock()
# Atlas training and inference series: no fused attention, and overflow shows in a register instead of the values.
_OLD_ASCENDS = re.compile(r"Ascend(910(Pro|Premium)?[AB]|310.*)")


def target() -> str:
    """``"CPU"``, ``"GPU"`` or ``"Ascend"``: the device in use."""
    import mindspore as ms

    return ms.get_context("device_target")


def normalises() -> bool:
    """Whether images are to come as uint8 and to be normalised in the graph: a quarter of the bytes to copy. On CPU
    nothing is copied, and the workers normalise faster than MindSpore's operators."""
    return target() != "CPU"


def compiles() -> bool:
    """Whether this process is to run whole graphs."""
    return bool(_graphs["wanted"])


def by_operator() -> bool:
    """Whether `setup` asked for operators one by one."""
    return _graphs["wanted"] is False


def setup(
    device_target: str = "CPU", *, device_id: int | None = None, graph: bool = True, compile_cache: str | None = None
) -> None:
    """Pick the device, and whether `graph.compiled` makes whole graphs (or runs operator by operator, for debugging).

    ``compile_cache``: a folder that keeps compiled graphs, so that the same run starts sooner the next time.
    ``device_id`` None is the first device, or in a cluster the one that MindSpore gives to the rank. Call it before
    ``cluster.start``: once the ranks are connected, the device is settled.
    """
    missing = missing_libraries(device_target)
    if missing and missing[0] in (DRIVERS[device_target], cuda_toolkit_problem()):
        # Without driver or toolkit no device: spare the user MindSpore's log.
        raise UserError(_unavailable(device_target, device_id, missing))
    import mindspore as ms

    _graphs["wanted"] = graph
    ms.set_context(mode=ms.GRAPH_MODE if graph and device_target == "CPU" else ms.PYNATIVE_MODE)
    if compile_cache is not None:
        ms.set_context(enable_compile_cache=True, compile_cache_path=compile_cache)
    if device_id is not None or target() != device_target:  # MindSpore's own choice may be set once only
        try:
            ms.set_device(device_target, device_id)
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(_unavailable(device_target, device_id, missing, str(error))) from None
    if device_target == "Ascend":
        check_ascend(ascend_chip())


def check_ascend(chip: str) -> None:
    """Refuse chips that would compute wrong results silently; ``chip`` is CANN's name: "Ascend910A", "Ascend910B2"."""
    if _OLD_ASCENDS.fullmatch(chip):
        raise UserError(f"device Ascend is {chip}; allowed: Ascend910B1 to B4 (Atlas A2) and newer")


def _unavailable(device_target: str, device_id: int | None, missing: list[str], text: str = "") -> str:
    reason = text.strip().split("\n")[0]
    if missing:
        reason = f"missing {', '.join(missing)} (wanted: {WANTED[device_target]})"
    device = device_target if device_id is None else f"{device_target} {device_id}"
    return f"device {device} is not available: {reason}; --device_target CPU works anywhere"


def compile_ahead(model: nn.Cell, shape: tuple[int, ...], *, shown: bool) -> None:
    """Compile the graph for float32 inputs of ``shape``, so that rates measured later are of computing alone."""
    import mindspore as ms

    if ms.get_context("mode") != ms.GRAPH_MODE:
        return
    start = time.monotonic()
    model.compile(ms.Tensor(np.zeros(shape, np.float32)))
    release_freed()
    if shown:
        print(f"compiled the graph in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)


def release_freed() -> None:
    """Give back to the system what the process has freed: glibc keeps a gigabyte and more of what compiling took."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)


def peak_memory() -> int:
    """The most bytes in use so far: of this process on CPU, of the device's memory elsewhere."""
    if target() == "CPU":
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    import mindspore as ms

    return ms.runtime.max_memory_allocated()


@contextmanager
def operator_by_operator() -> Iterator[None]:
    """Run in PyNative mode inside the block, where hooks work; restores the mode in force."""
    import mindspore as ms

    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=mode)


def seed(value: int) -> None:
    """Seed the generators of MindSpore, NumPy and Python; ``mindspore.set_seed`` alone does not seed Python's."""
    import mindspore as ms

    ms.set_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)
