from __future__ import annotations

from typing import Any, Callable

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from mindeit.kernels import block
from mindeit.layers.attention import Attention
from mindeit.layers.layer_scale import layer_scale
from mindeit.layers.linear import Linear
from mindeit.layers.mlp import Mlp
from mindeit.layers.norm import LayerNorm
from mindeit.layers.residual import Residual


class Block(nn.Cell):
    """One pre-norm residual block, (batch, tokens, dim) -> the same: ``attention`` over tokens, ``mlp`` over channels.

    ``init_scale`` is what LayerScale's gains start from; None leaves them out.
    """

    def __init__(
        self,
        dim: int,
        attention: nn.Cell,
        mlp: nn.Cell,
        drop_path: float,
        init_scale: float | None = None,
        norm: Callable[[int], nn.Cell] = LayerNorm,
    ) -> None:
        super().__init__()
        self.gamma_1, self.gamma_2 = layer_scale(dim, init_scale), layer_scale(dim, init_scale)
        self.norm1, self.attn = norm(dim), attention
        self.norm2, self.mlp = norm(dim), mlp
        self.residual1, self.residual2 = Residual(drop_path), Residual(drop_path)

    def construct(self, x: Tensor) -> Tensor:
        return self.by_parts(x)

    def by_parts(self, x: Tensor) -> Tensor:
        x = self.residual1(x, self.attn(self.norm1(x)), self.gamma_1)
        return self.residual2(x, self.mlp(self.norm2(x)), self.gamma_2)

    def weights(self, x: Tensor) -> Tensor:
        """Its attention's, (batch, heads, tokens, tokens)."""
        return self.attn.weights(self.norm1(x))


class TransformerBlock(Block):
    """The Vision Transformer's: self-attention, and an MLP four times as wide. A kernel may take it whole."""

    def __init__(
        self, dim: int, num_heads: int, drop_path: float, init_scale: float | None = None, drop_rate: float = 0.0
    ) -> None:
        super().__init__(dim, Attention(dim, num_heads, drop_rate), Mlp(dim, 4 * dim, drop_rate), drop_path, init_scale)
        self.whole = block.choose(num_heads, self.norm1.epsilon, self.by_parts)
        self.drops, self.made_of = drop_rate > 0, self.kinds()

    def kinds(self) -> list[type]:
        """Of the cells inside."""
        return [type(cell) for name, cell in self.cells_and_names() if "_recompute_cell" not in name]

    def __getattr__(self, name: str) -> Any:
        """``as_made``: nobody put in a layer of their own, which the whole would pass by. Python looks when a graph is
        compiled; the code of a property would become a part of the graph."""
        return self.kinds() == self.made_of if name == "as_made" else super().__getattr__(name)

    def construct(self, x: Tensor) -> Tensor:
        drops = self.training and self.drops  # single elements, which the whole does not
        if not (self.whole.fuses and self.as_made) or drops or x.dtype != ms.float32:
            return self.by_parts(x)
        return self.whole(
            x,
            _half(self.norm1, self.attn.qkv, self.attn.proj, self.gamma_1),
            _half(self.norm2, self.mlp.fc1, self.mlp.fc2, self.gamma_2),
            self.residual1.drop_path.draw,
            self.residual2.drop_path.draw,
        )


def _half(norm: LayerNorm, first: Linear, second: Linear, gain: Parameter | None) -> block.Half:
    if gain is None:
        gain = ops.ones(norm.gamma.shape, ms.float32)
    return norm.gamma, norm.beta, first.weight, first.bias, second.weight, second.bias, gain


class ParallelBlock(nn.Cell):
    """Two attentions side by side, then two MLPs: half the depth at the same cost (3Things). Arguments as for Block."""

    def __init__(
        self,
        dim: int,
        attention: tuple[nn.Cell, nn.Cell],
        mlp: tuple[nn.Cell, nn.Cell],
        drop_path: float,
        init_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.gamma_1, self.gamma_1_1 = layer_scale(dim, init_scale), layer_scale(dim, init_scale)
        self.gamma_2, self.gamma_2_1 = layer_scale(dim, init_scale), layer_scale(dim, init_scale)
        self.norm1, self.norm11 = LayerNorm(dim), LayerNorm(dim)
        self.attn, self.attn1 = attention
        self.norm2, self.norm21 = LayerNorm(dim), LayerNorm(dim)
        self.mlp, self.mlp1 = mlp
        self.residual1, self.residual11 = Residual(drop_path), Residual(drop_path)
        self.residual2, self.residual21 = Residual(drop_path), Residual(drop_path)

    def construct(self, x: Tensor) -> Tensor:
        first, second = self.attn(self.norm1(x)), self.attn1(self.norm11(x))
        x = self.residual11(self.residual1(x, first, self.gamma_1), second, self.gamma_1_1)
        first, second = self.mlp(self.norm2(x)), self.mlp1(self.norm21(x))
        return self.residual21(self.residual2(x, first, self.gamma_2), second, self.gamma_2_1)

    def weights(self, x: Tensor) -> Tensor:
        """Of both attentions, (batch, 2 * heads, tokens, tokens)."""
        return ops.concat((self.attn.weights(self.norm1(x)), self.attn1.weights(self.norm11(x))), 1)
