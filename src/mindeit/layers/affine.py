from __future__ import annotations

from mindspore import Parameter, Tensor, nn

from mindeit.layers.initial import constant, zeros


class Affine(nn.Cell):
    """A gain and an offset per channel, over the last axis: ResMLP's stand-in for a norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = Parameter(constant((dim,), 1), name="alpha")
        self.beta = Parameter(zeros((dim,)), name="beta")

    def construct(self, x: Tensor) -> Tensor:
        return x * self.alpha + self.beta
