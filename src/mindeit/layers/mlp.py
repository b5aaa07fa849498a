from __future__ import annotations

from mindspore import Tensor, nn

from mindeit.kernels import gelu
from mindeit.layers.linear import Linear


class Mlp(nn.Cell):
    """(..., dim) -> (..., hidden) -> exact GELU -> (..., dim)."""

    def __init__(self, dim: int, hidden: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)
        self.activation = gelu.choose()
        self.drop = nn.Dropout(p=drop_rate)

    def construct(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.activation(self.fc1(x)))))
