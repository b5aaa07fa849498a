"""Rows (n, in) times a weight (out, in), plus a bias (out,), and GELU of that."""

from __future__ import annotations

from typing import Callable

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindeit.kernels import bias, gelu
from mindeit.kernels.fused import Fused
from mindeit.kernels.native import operators
from mindeit.runtime import device


class ProductAndBias(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.matmul, self.bias_add = ops.MatMul(transpose_b=True), bias.choose()

    def construct(self, rows: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        return self.bias_add(self.matmul(rows, weight), offset)


class FusedProductAndBias(ProductAndBias, Fused):
    """In one operator, for float32: 120 GFLOP/s of 198 rows on two cores with AVX2, where MatMul reaches 50."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = operators.product(True)

    def multiply_in_bfloat16(self) -> None:
        self.fused = operators.bfloat16_product(True)

    def construct(self, rows: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        if not self.halves and rows.dtype == ms.float32:
            return self.fused(rows, weight, offset)
        return self.bias_add(self.matmul(rows, weight), offset)


class DenseProduct(nn.Cell):
    """Both at once; the bias' gradient by Ascend's newer sum."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = ops.Dense()

    def construct(self, rows: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        return self.dense(rows, weight, offset)


class FusedProduct(Fused):
    """Without a bias, for float32."""

    def __init__(self) -> None:
        super().__init__()
        self.fused, self.matmul = operators.product(False), ops.MatMul(transpose_b=True)

    def multiply_in_bfloat16(self) -> None:
        self.fused = operators.bfloat16_product(False)

    def construct(self, rows: Tensor, weight: Tensor) -> Tensor:
        if self.halves or rows.dtype != ms.float32:
            return self.matmul(rows, weight)
        return self.fused(rows, weight)


class ProductThenGelu(nn.Cell):
    def __init__(self, product: nn.Cell, activation: nn.Cell) -> None:
        super().__init__()
        self.product, self.activation = product, activation

    def construct(self, rows: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        return self.activation(self.product(rows, weight, offset))


class FusedProductGelu(nn.Cell):
    """Bias and GELU in one operator, for float32."""

    def __init__(self) -> None:
        super().__init__()
        self.matmul, self.fused = _product(), operators.bias_gelu()
        self.bias_add, self.activation = bias.choose(), gelu.ErfGelu()

    def construct(self, rows: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        product = self.matmul(rows, weight)
        if product.dtype != ms.float32:  # asked here: without a graph, operators alone cast what they get
            return self.activation(self.bias_add(product, offset))
        return self.fused(product, offset)


def _product() -> nn.Cell | ops.MatMul:
    return FusedProduct() if operators.multiplies() else ops.MatMul(transpose_b=True)


def choose() -> nn.Cell:
    return DenseProduct() if device.target() == "Ascend" else choose_convolution()


def choose_convolution() -> nn.Cell:
    """Where the product is one of windows of an image."""
    return FusedProductAndBias() if operators.multiplies() else ProductAndBias()


def choose_with_gelu(choose_product: Callable[[], nn.Cell] = choose) -> nn.Cell:
    return FusedProductGelu() if operators.available() else ProductThenGelu(choose_product(), gelu.choose())
