"""Attention whose heads exchange scores before the softmax and probabilities after it."""

from __future__ import annotations

from typing import Callable

from mindspore import Tensor, nn, ops

from mindeit.kernels.fused import ByParts
from mindeit.kernels.native import operators

Exchange = tuple[Tensor, Tensor]  # a weight (heads, heads) and a bias (heads,)


class FusedTalkingHeads(nn.Cell):
    """(product, exchange before and after the softmax) -> mixed values in one operator, for float32: neither scores nor
    probabilities reach memory.

    In graphs alone. Operator by operator the layer's own parts run, with the hooks that somebody may have put there.
    """

    fuses = True

    def __init__(self, num_heads: int, by_parts: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.num_heads, self.by_parts = num_heads, by_parts
        self.fused = operators.talking_heads(False)

    def multiply_in_bfloat16(self) -> None:
        self.fused = operators.talking_heads(True)

    def __call__(self, stacked: Tensor, before: Exchange, after: Exchange) -> Tensor:
        return self.by_parts(stacked)

    def construct(self, stacked: Tensor, before: Exchange, after: Exchange) -> Tensor:
        batch, tokens, width = stacked.shape
        apart = ops.reshape(stacked, (batch, tokens, 3, self.num_heads, width // (3 * self.num_heads)))
        return self.fused(apart, *before, *after)


def choose(num_heads: int, by_parts: Callable[[Tensor], Tensor]) -> nn.Cell:
    """``by_parts``: the layer without this, from its product to mixed values."""
    return FusedTalkingHeads(num_heads, by_parts) if operators.available() else ByParts()
