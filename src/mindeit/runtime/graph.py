"""Cells as compiled graphs, and arrays on their way to the device, so that no device waits for the host."""
from __future__ import annotations

from typing import Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from mindeit.runtime import device


def compiled(cell: nn.Cell) -> Callable[..., Tensor]:
    """``cell``, to be called as one graph, unless the run is to go operator by operator.

    In graph mode MindSpore waits for the device at the end of every call. A graph that is called in PyNative mode is
    only started, so `device.setup` chooses that mode where there is a device to keep busy.
    """
    if not device.compiles():
        return cell
    return ms.jit(cell) if ms.get_context("mode") == ms.PYNATIVE_MODE else GraphOnHost(cell)


class GraphOnHost:
    """Compiles at the first call, and hands back what that took before the graph asks for memory of its own."""

    def __init__(self, cell: nn.Cell) -> None:
        self._cell, self._compiled = cell, False

    def __call__(self, *inputs: Tensor) -> Tensor:
        if not self._compiled:
            self._cell.compile(*inputs)
            device.release_freed()
            self._compiled = True
        return self._cell(*inputs)


def to_device(array: np.ndarray) -> Tensor:
    """``array`` as a tensor, which looks at the same memory on CPU; elsewhere it is on its way when this returns.

    Graphs copy what is not on the device yet, too, but wait for it before and after.
    """
    tensor = Tensor.from_numpy(np.ascontiguousarray(array))
    target = device.target()
    return tensor if target == "CPU" else tensor.move_to(target, blocking=False)
