from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops

from mindeit.kernels import linear
from mindeit.layers.counted import Counted
from mindeit.layers.weight_init import truncated_normal, zeros


class Linear(Counted, nn.Cell):
    """(..., in) -> (..., out). The weight is (out, in) and starts as the official models' do, not as nn.Dense does.

    ``product``: a kernel that does more than this, or less.
    """

    def __init__(self, in_features: int, out_features: int, product: nn.Cell | None = None) -> None:
        super().__init__()
        self.fan_in, self.out_features = in_features, out_features
        self.weight = Parameter(truncated_normal((out_features, in_features)), name="weight")
        self.bias = Parameter(zeros((out_features,)), name="bias")
        self.product = product or linear.choose()

    def construct(self, x: Tensor) -> Tensor:
        rows = self.product(ops.reshape(x, (-1, self.fan_in)), self.weight, self.bias)
        return ops.reshape(rows, x.shape[:-1] + (self.out_features,))


def classifier(dim: int, num_classes: int) -> nn.Cell:
    """Features -> logits; without classes, features."""
    return Linear(dim, num_classes) if num_classes else nn.Identity()
