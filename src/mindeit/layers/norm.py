from __future__ import annotations

from mindspore import Tensor, nn

from mindeit.kernels import norm as kernel
from mindeit.layers.counted import Counted


class LayerNorm(Counted, nn.LayerNorm):
    """Over the last axis with the official epsilon (nn.LayerNorm's own default is 1e-7). Parameters: gamma, beta."""

    fan_in = 5

    def __init__(self, dim: int, epsilon: float = 1e-6) -> None:
        super().__init__((dim,), epsilon=epsilon)
        self.normalise = kernel.choose(epsilon)

    def construct(self, x: Tensor) -> Tensor:
        return self.normalise(x, self.gamma, self.beta)
