from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops

from mindeit.kernels import bias, gain
from mindeit.layers.weight_init import constant, zeros


class Affine(nn.Cell):
    """A gain and an offset per channel, over the last axis: ResMLP's stand-in for a norm."""

    float32 = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = Parameter(constant((dim,), 1), name="alpha")
        self.beta = Parameter(zeros((dim,)), name="beta")
        self.gain, self.bias_add = gain.choose(), bias.choose()

    def construct(self, x: Tensor) -> Tensor:
        rows = ops.reshape(self.gain(x, self.alpha), (-1, x.shape[-1]))
        return ops.reshape(self.bias_add(rows, self.beta), x.shape)
