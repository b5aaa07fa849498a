from __future__ import annotations

from mindspore import Tensor, nn

from mindeit.layers.attention import Attention
from mindeit.layers.drop_path import DropPath
from mindeit.layers.mlp import Mlp
from mindeit.layers.norm import LayerNorm


class Block(nn.Cell):
    """One pre-norm transformer block: attention, then a fourfold MLP, each added to its input."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = Attention(dim, num_heads, drop_rate)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim, drop_rate)
        self.drop_path1, self.drop_path2 = DropPath(drop_path), DropPath(drop_path)

    def construct(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))
