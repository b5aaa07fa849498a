"""Sums over all ranks, inside the compiled step."""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn, ops

from mindeit.runtime import device


def several_fit_a_graph() -> bool:
    """Whether more than one sum over ranks compiles: not in a graph on a GPU, but operator by operator."""
    return device.target() != "GPU" or not device.compiles()


class SumOverRanks(nn.Cell):
    """Float32 tensors ``(t1, t2, ...)`` of one axis -> their sums over all ranks; one rank: unchanged.

    They travel as one tensor. On a GPU a graph with a second AllReduce does not compile (MindSpore 2.7 to 2.10), on
    Ascend each is a kernel of its own, and on CPU the bytes cost, not the calls.
    """

    def __init__(self, ranks: int) -> None:
        super().__init__()
        self.ranks = ranks
        self.total: Any = ops.AllReduce() if ranks > 1 else None

    def construct(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.ranks == 1:
            return tensors
        sums, start = self.total(ops.concat(tensors)), 0
        parts: tuple[Tensor, ...] = ()
        for tensor in tensors:
            parts += (sums[start : start + tensor.shape[0]],)
            start += tensor.shape[0]
        return parts
