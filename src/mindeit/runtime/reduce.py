"""Gradients averaged over all ranks, inside the compiled step."""
from __future__ import annotations

from mindspore import Tensor, nn, ops

from mindeit.runtime import device


class MeanOverRanks(nn.Cell):
    """Gradients ``(g1, g2, ...)`` of this rank -> their means over all ranks, in the same shapes; one rank: unchanged.

    CPU sums tensor by tensor, which is as fast as one long tensor (both wait for the socket) and compiles sooner; each
    sum waits for the one before it, so that all ranks send theirs in one order. Elsewhere MindSpore fuses the calls.
    """

    def __init__(self, ranks: int):
        super().__init__()
        self.ranks = ranks
        self.in_turn = device.target() == "CPU"
        self.total = ops.AllReduce()
        if not self.in_turn:
            self.total.add_prim_attr("fusion", 1)

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.ranks == 1:
            return gradients
        means = ()
        for gradient in gradients:
            if self.in_turn and len(means) > 0:
                gradient = ops.depend(gradient, means[-1])
            means += (self.total(gradient) / self.ranks,)
        return means
