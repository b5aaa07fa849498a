"""The mean over tokens: (batch, tokens, dim) -> (batch, 1, dim)."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindeit.kernels.native import operators


class PlainTokenMean(nn.Cell):
    def construct(self, x: Tensor) -> Tensor:
        return ops.mean(x, 1, True)


class FusedTokenMean(nn.Cell):
    """For float32."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = operators.token_mean()

    def construct(self, x: Tensor) -> Tensor:
        return self.fused(x) if x.dtype == ms.float32 else ops.mean(x, 1, True)


def choose() -> nn.Cell:
    return FusedTokenMean() if operators.available() else PlainTokenMean()
