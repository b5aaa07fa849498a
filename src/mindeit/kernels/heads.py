"""Attention's heads brought forward: (batch, tokens, 3 * heads * head_dim) -> query, key, value in four axes; and back.

The first two axes are batch and heads in either order: attention treats both alike.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from mindeit.runtime import device


class TransposedHeads(nn.Cell):
    """(batch, heads, tokens, head_dim).

    Query, key and value are split before the heads come forward: indexing the stacked tensor would cost three
    StridedSlices.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def divide(self, stacked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = ops.split(stacked, stacked.shape[2] // 3, axis=-1)
        return self.bring_forward(query), self.bring_forward(key), self.bring_forward(value)

    def bring_forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        return ops.transpose(ops.reshape(x, (batch, tokens, self.num_heads, dim // self.num_heads)), (0, 2, 1, 3))

    def merge(self, mixed: Tensor) -> Tensor:
        batch, heads, tokens, head_dim = mixed.shape
        return ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (batch, tokens, heads * head_dim))


class TransposedOnce(TransposedHeads):
    """The heads come forward before query, key and value part: one Transpose instead of three, also for gradients."""

    def divide(self, stacked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, tokens, dim = stacked.shape
        apart = ops.reshape(stacked, (batch, tokens, 3, self.num_heads, dim // (3 * self.num_heads)))
        query, key, value = ops.split(ops.transpose(apart, (2, 0, 3, 1, 4)), 1, axis=0)
        return ops.squeeze(query, 0), ops.squeeze(key, 0), ops.squeeze(value, 0)


class StackedHeads(nn.Cell):
    """(heads, batch, tokens, head_dim), by cutting apart and joining.

    On CPU each Transpose of a graph keeps a copy of its input and output for good: a quarter of a training's memory.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def divide(self, stacked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.num_heads
        parts = ops.split(stacked, stacked.shape[2] // (3 * heads), axis=-1)
        return self.stack(parts[:heads]), self.stack(parts[heads : 2 * heads]), self.stack(parts[2 * heads :])

    def stack(self, parts: tuple[Tensor, ...]) -> Tensor:
        return ops.reshape(ops.concat(parts, 0), (self.num_heads, *parts[0].shape))

    def merge(self, mixed: Tensor) -> Tensor:
        heads, batch, tokens, head_dim = mixed.shape
        return ops.concat(ops.split(ops.reshape(mixed, (heads * batch, tokens, head_dim)), batch, axis=0), -1)


def choose(num_heads: int) -> nn.Cell:
    return StackedHeads(num_heads) if device.target() == "CPU" else TransposedOnce(num_heads)
