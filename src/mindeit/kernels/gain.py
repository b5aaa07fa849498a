"""A tensor (batch, tokens, dim) times a smaller one: (dim,), (batch, 1, dim) or (batch, 1, 1)."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindeit.kernels.fused import Fused
from mindeit.kernels.native import operators
from mindeit.runtime import device


class BroadcastGain(nn.Cell):
    def construct(self, x: Tensor, gain: Tensor) -> Tensor:
        return x * gain


class ProductGain(nn.Cell):
    """The smaller one is spread by a product with ones, and its gradient summed by one.

    On CPU broadcasting is slower, keeps copies of its inputs as long as the graph lives, and sums on one core. So do
    products of halves: all is taken in float32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.product, self.each = ops.MatMul(), ops.BatchMatMul()

    def construct(self, x: Tensor, gain: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        gain = gain.astype(ms.float32)
        if gain.ndim == 1:
            spread = self.product(ops.ones((batch * tokens, 1), ms.float32), ops.reshape(gain, (1, dim)))
        elif gain.shape[-1] == 1:
            spread = self.product(ops.reshape(gain, (batch, 1)), ops.ones((1, tokens * dim), ms.float32))
        else:
            spread = self.each(ops.ones((batch, tokens, 1), ms.float32), gain)
        return (x.astype(ms.float32) * ops.reshape(spread, x.shape)).astype(x.dtype)


class FusedGain(Fused):
    """By an operator of its own where the gain is (batch, 1, dim), for float32."""

    def __init__(self) -> None:
        super().__init__()
        self.fused, self.plain = operators.token_gain(), ProductGain()

    def construct(self, x: Tensor, gain: Tensor) -> Tensor:
        if self.halves or x.dtype != ms.float32 or gain.shape != (x.shape[0], 1, x.shape[2]):
            return self.plain(x, gain)
        return self.fused(x, gain)


def choose() -> nn.Cell:
    if operators.available():
        return FusedGain()
    return ProductGain() if device.target() == "CPU" else BroadcastGain()
