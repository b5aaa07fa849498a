from __future__ import annotations

from mindspore import Tensor, nn, ops


class DropPath(nn.Cell):
    """Stochastic depth: in training, a sample's residual is dropped at random, or scaled to keep the mean."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.dropout = nn.Dropout(p=probability) if probability > 0 else None

    def construct(self, x: Tensor) -> Tensor:
        if self.dropout is None or not self.training:
            return x
        per_sample = ops.ones((x.shape[0],) + (1,) * (x.ndim - 1), x.dtype)
        return x * self.dropout(per_sample)
