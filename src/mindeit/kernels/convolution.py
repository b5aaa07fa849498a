"""Convolutions of images (batch, channels, height, width), padded by half their kernel."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindeit.kernels.fused import Fused
from mindeit.kernels.native import operators


class PlainConvolution(nn.Cell):
    def __init__(self, stock: ops.Conv2D) -> None:
        super().__init__()
        self.stock = stock

    def construct(self, images: Tensor, weight: Tensor) -> Tensor:
        return self.stock(images, weight)


class FusedConvolution(Fused):
    """One operator, for float32: 100 times MindSpore's own where the CPU has AVX-512, for which oneDNN has no fast form
    of images whose channels come first."""

    def __init__(self, stock: ops.Conv2D, stride: int) -> None:
        super().__init__()
        self.stock, self.stride = stock, stride
        self.fused = operators.convolution(stride, False)

    def multiply_in_bfloat16(self) -> None:
        self.fused = operators.convolution(self.stride, True)

    def construct(self, images: Tensor, weight: Tensor) -> Tensor:
        if self.halves or images.dtype != ms.float32:
            return self.stock(images, weight)
        return self.fused(images, weight)


def choose(stock: ops.Conv2D, stride: int) -> nn.Cell:
    """``stride``: 1 or 2."""
    return FusedConvolution(stock, stride) if operators.multiplies() else PlainConvolution(stock)
