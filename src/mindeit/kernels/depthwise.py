"""GELU of a 3x3 convolution of each channel for itself, on places of a square: (batch, places, dim) -> the same."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindeit.kernels import bias, gelu
from mindeit.kernels.fused import Fused
from mindeit.kernels.native import operators


class PlainDepthwiseGelu(nn.Cell):
    """By the back end's convolution, which has the channels first."""

    def __init__(self, dim: int, side: int, activation: nn.Cell) -> None:
        super().__init__()
        self.side = side
        self.conv = ops.Conv2D(dim, 3, pad_mode="pad", pad=1, group=dim)
        self.bias_add, self.activation = bias.choose(), activation

    def construct(self, x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        batch, places, dim = x.shape
        image = ops.reshape(ops.transpose(x, (0, 2, 1)), (batch, dim, self.side, self.side))
        seen = ops.reshape(self.conv(image, weight.astype(x.dtype)), (batch, dim, places))
        rows = ops.reshape(ops.transpose(seen, (0, 2, 1)), (-1, dim))
        return self.activation(ops.reshape(self.bias_add(rows, offset), x.shape))


class FusedDepthwiseGelu(Fused):
    """One operator, for float32."""

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.fused = operators.depthwise_gelu()
        self.plain = PlainDepthwiseGelu(dim, side, gelu.ErfGelu())

    def construct(self, x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        if self.halves or x.dtype != ms.float32:
            return self.plain(x, weight, offset)
        return self.fused(x, weight, offset)


def choose(dim: int, side: int) -> nn.Cell:
    return FusedDepthwiseGelu(dim, side) if operators.available() else PlainDepthwiseGelu(dim, side, gelu.choose())
