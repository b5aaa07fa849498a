"""Class tokens that join late: the last blocks let them gather from the patches, which stay as they are (CaiT)."""

from __future__ import annotations

from math import prod

from mindspore import Tensor, nn, ops

from mindeit.kernels.attention import MatmulAttention
from mindeit.kernels.heads import TransposedHeads
from mindeit.layers.counted import Counted
from mindeit.layers.layer_scale import layer_scale
from mindeit.layers.linear import Linear
from mindeit.layers.mlp import Mlp
from mindeit.layers.norm import LayerNorm
from mindeit.layers.residual import Residual


class ClassAttention(Counted, nn.Cell):
    """What class tokens (batch, classes, dim) gather from ``seen`` (batch, tokens, dim): (batch, classes, dim).

    Never the fused kernel: there are few rows, and heads of up to 1024.
    """

    def __init__(self, dim: int, num_heads: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.scale = (dim // num_heads) ** -0.5
        self.q, self.k, self.v = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(p=drop_rate)
        self.heads, self.attend = TransposedHeads(num_heads), MatmulAttention()

    def construct(self, classes: Tensor, seen: Tensor) -> Tensor:
        query, key = self.heads.bring_forward(self.q(classes)), self.heads.bring_forward(self.k(seen))
        mixed = self.attend(query, key, self.heads.bring_forward(self.v(seen)), self.scale)
        return self.proj_drop(self.proj(self.heads.merge(mixed)))

    def multiply_adds(self, inputs: tuple[Tensor, ...], out: tuple[int, ...]) -> int:
        return 2 * inputs[1].shape[1] * prod(out)

    def weights(self, classes: Tensor, seen: Tensor) -> Tensor:
        """(batch, heads, classes, tokens)."""
        query, key = self.heads.bring_forward(self.q(classes)), self.heads.bring_forward(self.k(seen))
        return self.attend.weights(query, key, self.scale)


class ClassBlock(nn.Cell):
    """(class tokens, patches) -> class tokens, by class attention and an MLP. Never dropped as a path.

    A lone class token sees itself among the patches; several (``see_patches_only``) do not.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden: int,
        init_scale: float,
        drop_rate: float = 0.0,
        see_patches_only: bool = False,
    ) -> None:
        super().__init__()
        self.gamma_1, self.gamma_2 = layer_scale(dim, init_scale), layer_scale(dim, init_scale)
        self.norm1, self.attn = LayerNorm(dim), ClassAttention(dim, num_heads, drop_rate)
        self.norm2, self.mlp = LayerNorm(dim), Mlp(dim, hidden, drop_rate)
        self.residual1, self.residual2, self.see_patches_only = Residual(), Residual(), see_patches_only

    def construct(self, classes: Tensor, patches: Tensor) -> Tensor:
        asking, seen = self.views(classes, patches)
        classes = self.residual1(classes, self.attn(asking, seen), self.gamma_1)
        return self.residual2(classes, self.mlp(self.norm2(classes)), self.gamma_2)

    def views(self, classes: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """The queries, and the tokens that they see, both normalised."""
        asking, seen = self.norm1(classes), self.norm1(patches)
        return asking, seen if self.see_patches_only else ops.concat((asking, seen), 1)

    def weights(self, classes: Tensor, patches: Tensor) -> Tensor:
        """(batch, heads, classes, tokens)."""
        asking, seen = self.views(classes, patches)
        return self.attn.weights(asking, seen)
