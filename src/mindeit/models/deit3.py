"""DeiT III (https://arxiv.org/abs/2204.07118) and the models of "Three things everyone should know about Vision
Transformers" (https://arxiv.org/abs/2203.09795), after models_v2.py of facebookresearch/deit."""

from __future__ import annotations

from typing import Any

from mindspore import Parameter, Tensor, nn, ops

from mindeit.errors import UserError
from mindeit.layers.attention import Attention
from mindeit.layers.block import ParallelBlock, TransformerBlock
from mindeit.layers.hmlp_stem import HMLPStem
from mindeit.layers.linear import classifier
from mindeit.layers.mlp import Mlp
from mindeit.layers.norm import LayerNorm
from mindeit.layers.patch_embed import PatchEmbed, check_whole_patches
from mindeit.layers.weight_init import truncated_normal
from mindeit.models.backbone import Transformer, repeated


class DeiT3(Transformer):
    """Images (batch, 3, S, S) -> logits (batch, num_classes); features (batch, embed_dim) where num_classes is 0.

    Unlike DeiT's: the position table has no slot for the class token, which joins behind it; drop path is the same in
    all blocks; dropout acts before the head alone; LayerScale where ``init_scale`` is given.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        parallel: bool,
        init_scale: float | None,
        hmlp_stem: bool,
        num_classes: int,
        image_size: int,
        drop_path_rate: float,
        drop_rate: float,
        in_channels: int = 3,
    ) -> None:
        super().__init__(
            num_classes=num_classes, image_size=image_size, num_features=embed_dim, in_channels=in_channels
        )
        stem = HMLPStem(embed_dim, in_channels) if hmlp_stem else None
        self.patch_embed = PatchEmbed(image_size, patch_size, embed_dim, stem, in_channels)
        self.cls_token = Parameter(truncated_normal((1, 1, embed_dim)), name="cls_token")
        self.pos_embed = Parameter(truncated_normal((1, self.patch_embed.num_patches, embed_dim)), name="pos_embed")
        make = _parallel_block if parallel else TransformerBlock
        self.blocks = nn.CellList([make(embed_dim, num_heads, drop_path_rate, init_scale) for _ in range(depth)])
        self.norm = LayerNorm(embed_dim)
        self.drop = nn.Dropout(p=drop_rate)
        self.head = classifier(embed_dim, num_classes)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        token = self.drop(features[:, 0])
        return token if pre_logits else self.head(token)

    def embed(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        patches = patches + self.pos_embed.astype(patches.dtype)
        return ops.concat((repeated(self.cls_token, patches), patches), 1)


def _parallel_block(dim: int, num_heads: int, drop_path: float, init_scale: float | None) -> ParallelBlock:
    attentions = Attention(dim, num_heads), Attention(dim, num_heads)
    return ParallelBlock(dim, attentions, (Mlp(dim, 4 * dim), Mlp(dim, 4 * dim)), drop_path, init_scale)


def build(*, image_size: int, patch_size: int, hmlp_stem: bool = False, **arguments: Any) -> DeiT3:
    """``image_size`` may leave a rest: patches of 14 see 154 pixels of 160, as when the largest models were trained."""
    if hmlp_stem:
        check_whole_patches(image_size, 16)
    if image_size < patch_size:
        raise UserError(f"image_size is {image_size}; allowed: the patch size {patch_size} and more")
    return DeiT3(image_size=image_size, patch_size=patch_size, hmlp_stem=hmlp_stem, **arguments)
