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
    if device.compiles() and ms.get_context("mode") == ms.PYNATIVE_MODE:
        return ms.jit(cell)
    return cell


def to_device(array: np.ndarray) -> Tensor:
    """``array`` as a tensor, which looks at the same memory on CPU; elsewhere it is on its way when this returns.

    Graphs copy what is not on the device yet, too, but wait for it before and after.
    """
    tensor = Tensor.from_numpy(np.ascontiguousarray(array))
    target = device.target()
    return tensor if target == "CPU" else tensor.move_to(target, blocking=False)
