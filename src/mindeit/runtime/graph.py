"""Cells as compiled graphs, and arrays on their way to the device, so that no device waits for the host."""

from __future__ import annotations

import sys
from typing import Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from mindeit.runtime import device
from mindeit.runtime.log import compiling


def compiled(cell: nn.Cell, title: str = "") -> Callable[..., Tensor]:
    """``cell``, to be called as one graph, unless the run is to go operator by operator.

    In graph mode MindSpore waits for the device at the end of every call. A graph that is called in PyNative mode is
    only started, so `device.setup` chooses that mode where there is a device to keep busy. ``title`` names it
    in the log; "": no message.
    """
    if not device.compiles():
        return cell
    graph = ms.jit(cell) if ms.get_context("mode") == ms.PYNATIVE_MODE else GraphOnHost(cell)
    return AnnouncedCompilation(graph, title) if title else graph


class AnnouncedCompilation:
    """Logs that the first call compiles, and how long it takes (on the host with the first step)."""

    def __init__(self, graph: Callable[..., Tensor], title: str) -> None:
        self._graph, self._title = graph, title

    def __call__(self, *inputs: Tensor) -> Tensor:
        if not self._title:
            return self._graph(*inputs)
        with compiling(self._title):
            result = self._graph(*inputs)
        self._title = ""
        return result


class GraphOnHost:
    """Compiles at the first call, and frees the memory of compiling before the graph allocates its own."""

    def __init__(self, cell: nn.Cell) -> None:
        self._cell, self._compiled = cell, False

    def __call__(self, *inputs: Tensor) -> Tensor:
        if not self._compiled:
            self._cell.compile(*inputs)
            device.release_freed()
            self._compiled = True
        return self._cell(*inputs)


class Inference:
    """Arrays in, arrays out: ``cell`` in evaluation mode, as a graph for each shape whatever mode the process is in.

    For any number of threads, which wait for each other. Prints when it compiles; `device.setup` with ``graph=False``
    asks for operators one by one. ``title`` names the model on the screen.
    """

    def __init__(self, cell: nn.Cell, title: str) -> None:
        self._cell, self._title = cell, title
        self._shapes: set[tuple[int, ...]] = set()
        self._run = cell if device.by_operator() else ms.jit(cell)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        with device.one_at_a_time:
            if self._cell.training:
                self._cell.set_train(False)
            new = images.shape not in self._shapes and self._run is not self._cell
            if new:
                print(f"compiling {self._title} for batches of {len(images)}, once", file=sys.stderr, flush=True)
            results = self._run(to_device(images)).asnumpy().copy()  # else the memory is MindSpore's
            if new:
                self._shapes.add(images.shape)
                device.release_freed()
            return results


def to_device(array: np.ndarray) -> Tensor:
    """``array`` as a tensor. On CPU it shares the memory; elsewhere the copy to the device has only been started.

    Graphs copy what is not on the device yet, too, but wait for it before and after.
    """
    tensor = Tensor.from_numpy(np.ascontiguousarray(array))
    target = device.target()
    return tensor if target == "CPU" else tensor.move_to(target, blocking=False)
