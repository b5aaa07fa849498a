from __future__ import annotations

from mindspore import Tensor, nn

from mindeit.kernels import linear
from mindeit.layers.linear import Linear


class Mlp(nn.Cell):
    """(..., dim) -> (..., hidden) -> exact GELU -> (..., dim)."""

    def __init__(self, dim: int, hidden: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden, linear.choose_with_gelu())
        self.fc2 = Linear(hidden, dim)
        self.drop = nn.Dropout(p=drop_rate)

    def construct(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.fc1(x))))
