from __future__ import annotations

from mindspore import Tensor, nn, ops

from mindeit.kernels import attention as kernel
from mindeit.layers.linear import Linear


class Attention(nn.Cell):
    """Multi-head self-attention: (batch, tokens, dim) -> the same. ``qkv`` stacks query, key and value rows."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(p=drop_rate)
        self.attend = kernel.choose()

    def construct(self, x: Tensor) -> Tensor:
        query, key, value = self.heads(x)
        mixed = self.attend(query, key, value, self.scale)
        return self.proj_drop(self.proj(ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), x.shape)))

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each (batch, heads, tokens, head_dim).

        Split before the heads come forward: indexing the stacked tensor costs a StridedSlice of 16 ms on CPU.
        """
        batch, tokens, dim = x.shape
        query, key, value = ops.split(self.qkv(x), dim, axis=-1)
        shape, order = (batch, tokens, self.num_heads, self.head_dim), (0, 2, 1, 3)
        return (
            ops.transpose(ops.reshape(query, shape), order),
            ops.transpose(ops.reshape(key, shape), order),
            ops.transpose(ops.reshape(value, shape), order),
        )

    def weights(self, x: Tensor) -> Tensor:
        """What each token looks at, (batch, heads, tokens, tokens): for pictures, not for speed."""
        query, key, _ = self.heads(x)
        return kernel.attention_weights(query, key, self.scale)
