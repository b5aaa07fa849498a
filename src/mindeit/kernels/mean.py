"""The mean over tokens: (batch, tokens, dim) -> (batch, 1, dim)."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindeit.kernels.fused import Fused
from mindeit.kernels.native import operators


class PlainTokenMean(nn.Cell):
    def construct(self, x: Tensor) -> Tensor:
        return ops.mean(x, 1, True)


class FusedTokenMean(Fused):
    """For float32."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = operators.token_mean()

    def construct(self, x: Tensor) -> Tensor:
        return ops.mean(x, 1, True) if self.halves or x.dtype != ms.float32 else self.fused(x)


def choose() -> nn.Cell:
    return FusedTokenMean() if operators.available() else PlainTokenMean()
