"""x (batch, tokens, dim) plus a branch, which is scaled on the way."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindeit.kernels.native import operators


class PlainResidual(nn.Cell):
    """Has nothing to compute: single operators scale the branch and add it."""

    fuses = False


class FusedResidual(nn.Cell):
    """Scales by channel, by ``gain`` (dim,), and by image, by ``factors`` (batch,), in the same operator, for float32.

    Either may be None.
    """

    fuses = True

    def __init__(self) -> None:
        super().__init__()
        self.with_gain, self.without_gain = operators.residual(True), operators.residual(False)

    def construct(self, x: Tensor, branch: Tensor, gain: Tensor | None, factors: Tensor | None) -> Tensor:
        if gain is None and factors is None:
            return x + branch
        by_image = ops.ones((x.shape[0],), ms.float32) if factors is None else factors
        if gain is None:
            return self.without_gain(x, branch, ops.ones((x.shape[2],), ms.float32), by_image)
        return self.with_gain(x, branch, gain, by_image)


def choose() -> nn.Cell:
    return FusedResidual() if operators.available() else PlainResidual()
