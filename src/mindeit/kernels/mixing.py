"""A weight (out, tokens) times the tokens of each image (batch, tokens, dim): each becomes a mixture of all."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindeit.kernels.fused import Fused
from mindeit.kernels.native import operators


class PlainMixing(nn.Cell):
    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return ops.matmul(weight.astype(x.dtype), x)


class FusedMixing(Fused):
    """One operator, for float32: tokens as channels of a pointwise convolution, their features as places."""

    def __init__(self) -> None:
        super().__init__()
        self.fused, self.plain = operators.convolution(1, False), PlainMixing()

    def multiply_in_bfloat16(self) -> None:
        self.fused = operators.convolution(1, True)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.halves or x.dtype != ms.float32:
            return self.plain(x, weight)
        mixed = self.fused(ops.expand_dims(x, 3), ops.reshape(weight, weight.shape + (1, 1)))
        return ops.reshape(mixed, (x.shape[0], weight.shape[0], x.shape[2]))


def choose() -> nn.Cell:
    return FusedMixing() if operators.multiplies() else PlainMixing()
