from __future__ import annotations

from math import prod

from mindspore import Tensor, nn

from mindeit.errors import UserError
from mindeit.kernels import attention, heads
from mindeit.layers.counted import Counted
from mindeit.layers.linear import Linear


class SelfAttention(Counted, nn.Cell):
    """(batch, tokens, dim) -> the same. ``qkv`` stacks query, key and value rows; subclasses do what follows it."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        if dim % num_heads:
            raise UserError(f"embed_dim is {dim}; allowed: multiples of num_heads {num_heads}")
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(p=drop_rate)
        self.attend, self.batch_first = attention.choose(), heads.TransposedHeads(num_heads)

    def multiply_adds(self, inputs: tuple[Tensor, ...], out: tuple[int, ...]) -> int:
        return 2 * out[1] * prod(out)


class Attention(SelfAttention):
    """Multi-head self-attention."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float = 0.0) -> None:
        super().__init__(dim, num_heads, drop_rate)
        self.mix = attention.choose_stacked(num_heads)

    def construct(self, x: Tensor) -> Tensor:
        return self.proj_drop(self.proj(self.mix(self.qkv(x))))

    def weights(self, x: Tensor) -> Tensor:
        """What each token looks at, (batch, heads, tokens, tokens): for images, not for speed."""
        query, key, _ = self.batch_first.divide(self.qkv(x))
        return self.attend.weights(query, key, self.scale)
