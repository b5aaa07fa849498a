from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, ops

from mindeit.kernels import talking_heads
from mindeit.layers.attention import SelfAttention
from mindeit.layers.linear import Linear


class HeadMix(Linear):
    """(batch, heads, tokens, tokens) -> the same: each head becomes a mixture of all."""

    def __init__(self, heads: int) -> None:
        super().__init__(heads, heads)
        self.bias_along_heads = ops.BiasAdd()

    def construct(self, scores: Tensor) -> Tensor:
        batch, heads, rows, columns = scores.shape
        mixed = ops.matmul(self.weight.astype(scores.dtype), ops.reshape(scores, (batch, heads, rows * columns)))
        return self.bias_along_heads(ops.reshape(mixed, scores.shape), self.bias.astype(mixed.dtype))


class TalkingHeads(SelfAttention):
    """Self-attention whose heads exchange scores before the softmax and weights after it (arXiv:2003.02436)."""

    def __init__(self, dim: int, num_heads: int, drop_rate: float = 0.0) -> None:
        super().__init__(dim, num_heads, drop_rate)
        self.proj_l, self.proj_w = HeadMix(num_heads), HeadMix(num_heads)
        self.whole = talking_heads.choose(num_heads, self.by_parts)

    def __getattr__(self, name: str) -> Any:
        """``as_made``: nobody put in an exchange of their own (see TransformerBlock)."""
        if name == "as_made":
            return type(self.proj_l) is HeadMix and type(self.proj_w) is HeadMix
        return super().__getattr__(name)

    def construct(self, x: Tensor) -> Tensor:
        return self.proj_drop(self.proj(self.mixed(self.qkv(x))))

    def mixed(self, stacked: Tensor) -> Tensor:
        if not (self.whole.fuses and self.as_made) or stacked.dtype != ms.float32:
            return self.by_parts(stacked)
        before, after = (self.proj_l.weight, self.proj_l.bias), (self.proj_w.weight, self.proj_w.bias)
        return self.whole(stacked, before, after)

    def by_parts(self, stacked: Tensor) -> Tensor:
        query, key, value = self.batch_first.divide(stacked)
        return self.batch_first.merge(self.attend.mix(self.talk(query, key), value))

    def talk(self, query: Tensor, key: Tensor) -> Tensor:
        return self.proj_w(self.attend.normalised(self.proj_l(self.attend.scores(query * self.scale, key))))

    def weights(self, x: Tensor) -> Tensor:
        """After the second exchange, when rows no longer sum to 1."""
        query, key, _ = self.batch_first.divide(self.qkv(x))
        return self.talk(query, key)
