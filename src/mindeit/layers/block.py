from __future__ import annotations

from typing import Callable

from mindspore import Tensor, nn, ops

from mindeit.layers.drop_path import DropPath
from mindeit.layers.layer_scale import Scaled, layer_scale
from mindeit.layers.norm import LayerNorm


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
        self.drop_path1, self.drop_path2, self.scaled = DropPath(drop_path), DropPath(drop_path), Scaled()

    def construct(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.scaled(self.attn(self.norm1(x)), self.gamma_1))
        return x + self.drop_path2(self.scaled(self.mlp(self.norm2(x)), self.gamma_2))

    def weights(self, x: Tensor) -> Tensor:
        """Its attention's, (batch, heads, tokens, tokens)."""
        return self.attn.weights(self.norm1(x))


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
        self.drop_path1, self.drop_path11 = DropPath(drop_path), DropPath(drop_path)
        self.drop_path2, self.drop_path21 = DropPath(drop_path), DropPath(drop_path)
        self.scaled = Scaled()

    def construct(self, x: Tensor) -> Tensor:
        first = self.drop_path1(self.scaled(self.attn(self.norm1(x)), self.gamma_1))
        second = self.drop_path11(self.scaled(self.attn1(self.norm11(x)), self.gamma_1_1))
        x = x + first + second
        first = self.drop_path2(self.scaled(self.mlp(self.norm2(x)), self.gamma_2))
        second = self.drop_path21(self.scaled(self.mlp1(self.norm21(x)), self.gamma_2_1))
        return x + first + second

    def weights(self, x: Tensor) -> Tensor:
        """Of both attentions, (batch, 2 * heads, tokens, tokens)."""
        return ops.concat((self.attn.weights(self.norm1(x)), self.attn1.weights(self.norm11(x))), 1)
