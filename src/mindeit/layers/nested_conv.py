"""Convolutions whose stride is their kernel, on pixels in nested order: each is a reshape and a matrix product."""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops

from mindeit.kernels import linear
from mindeit.layers.counted import Counted
from mindeit.layers.weight_init import uniform


class NestedConv(Counted, nn.Cell):
    """(..., n, channels) -> (..., n / kernel**2, out): each run of kernel**2 rows is one window, row by row.

    The weight keeps the convolution's shape (out, channels, kernel, kernel) and its uniform initial values. A kernel
    of 1 is the pointwise convolution, in any order. ``product``: a kernel that does more than this.
    """

    def __init__(self, channels: int, out: int, kernel: int = 1, product: nn.Cell | None = None) -> None:
        super().__init__()
        self.out, self.fan_in = out, channels * kernel**2
        bound = self.fan_in**-0.5
        self.weight = Parameter(uniform((out, channels, kernel, kernel), bound), name="weight")
        self.bias = Parameter(uniform((out,), bound), name="bias")
        self.product = product or linear.choose_convolution()

    def construct(self, x: Tensor) -> Tensor:
        rows = ops.reshape(x, (-1, self.fan_in))
        weight = ops.reshape(ops.transpose(self.weight, (0, 2, 3, 1)), (self.out, self.fan_in)).astype(rows.dtype)
        return ops.reshape(self.product(rows, weight, self.bias), x.shape[:-2] + (-1, self.out))


def nested_pixels(images: Tensor, outer: int, middle: int, inner: int) -> Tensor:
    """(batch, channels, S, S) -> (batch * S * S, channels): patch by patch of ``outer`` pixels a side; within each one,
    square by square of ``middle``, then of ``inner``, then pixel by pixel."""
    batch, channels, size, _ = images.shape
    grid, many, few = size // outer, outer // middle, middle // inner
    patches = ops.transpose(ops.reshape(images, (batch, channels, grid, outer, grid, outer)), (0, 2, 4, 3, 5, 1))
    squares = ops.reshape(patches, (-1, many, few, inner, many, few, inner, channels))
    return ops.reshape(ops.transpose(squares, (0, 1, 4, 2, 5, 3, 6, 7)), (-1, channels))
