"""Rows (n, in) times a weight (out, in), plus a bias (out,)."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from mindeit.kernels import bias
from mindeit.runtime import device


class ProductAndBias(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.matmul, self.bias_add = ops.MatMul(transpose_b=True), bias.choose()

    def construct(self, rows: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        return self.bias_add(self.matmul(rows, weight), offset)


class DenseProduct(nn.Cell):
    """Both at once; the bias' gradient by Ascend's newer sum."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = ops.Dense()

    def construct(self, rows: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        return self.dense(rows, weight, offset)


def choose() -> nn.Cell:
    return DenseProduct() if device.target() == "Ascend" else ProductAndBias()
