from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn

from mindeit.kernels import residual
from mindeit.layers.drop_path import DropPath
from mindeit.layers.layer_scale import Scaled


class Residual(nn.Cell):
    """(x, branch, LayerScale's gain or None) -> x + the branch, scaled, and in training dropped at random as a path.

    Takes what it gets as it is, in half precision too: as a half, a gain of 1e-6 would be 1.3 % off.
    """

    def __init__(self, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path, self.scaled, self.sum = DropPath(drop_path), Scaled(), residual.choose()

    def add_flags_recursive(self, **flags: bool) -> Residual:
        """What `to_float` calls: for the cells inside."""
        super().add_flags_recursive(**flags)
        return self.add_flags(**{key: False for key in flags if key in ("fp16", "fp32", "bf16")})

    def construct(self, x: Tensor, branch: Tensor, gain: Parameter | None) -> Tensor:
        if self.sum.fuses and x.dtype == ms.float32 and branch.dtype == ms.float32:
            return self.sum(x, branch, gain, self.drop_path.draw(branch))
        return x + self.drop_path(self.scaled(branch, gain))
