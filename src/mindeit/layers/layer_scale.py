from __future__ import annotations

from mindspore import Parameter, Tensor, nn

from mindeit.kernels import gain
from mindeit.layers.weight_init import constant


def layer_scale(dim: int, start: float | None) -> Parameter | None:
    """A residual branch's gain per channel (CaiT's LayerScale), (dim,); None where ``start`` is None: no gain."""
    return None if start is None else Parameter(constant((dim,), start))


class Scaled(nn.Cell):
    """(branch, its gain or None) -> branch. A half could not tell a gain of 1e-6 from its neighbours."""

    float32 = True

    def __init__(self) -> None:
        super().__init__()
        self.gain = gain.choose()

    def construct(self, branch: Tensor, by: Parameter | None) -> Tensor:
        return branch if by is None else self.gain(branch, by)
