"""CaiT (https://arxiv.org/abs/2103.17239), after cait_models.py of facebookresearch/deit."""

from __future__ import annotations

from typing import Any

from mindspore import Parameter, Tensor, nn

from mindeit.layers.block import Block
from mindeit.layers.class_attention import ClassBlock
from mindeit.layers.linear import classifier
from mindeit.layers.mlp import Mlp
from mindeit.layers.norm import LayerNorm
from mindeit.layers.patch_embed import PatchEmbed, check_whole_patches
from mindeit.layers.talking_heads import TalkingHeads
from mindeit.layers.weight_init import truncated_normal
from mindeit.models.backbone import LateClassTokens


class CaiT(LateClassTokens):
    """Images (batch, 3, S, S) -> logits (batch, num_classes); features (batch, embed_dim) where num_classes is 0.

    Patches alone pass ``depth`` blocks of talking heads with the same drop path; then the class token gathers from them
    in two blocks of class attention, which know neither drop path nor dropout.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        init_scale: float,
        num_classes: int,
        image_size: int,
        drop_path_rate: float,
        drop_rate: float,
        in_channels: int = 3,
    ) -> None:
        super().__init__(
            num_classes=num_classes, image_size=image_size, num_features=embed_dim, in_channels=in_channels
        )
        self.patch_embed = PatchEmbed(image_size, patch_size, embed_dim, in_channels=in_channels)
        self.cls_token = Parameter(truncated_normal((1, 1, embed_dim)), name="cls_token")
        self.pos_embed = Parameter(truncated_normal((1, self.patch_embed.num_patches, embed_dim)), name="pos_embed")
        self.pos_drop = nn.Dropout(p=drop_rate)
        self.blocks = nn.CellList(
            [
                Block(
                    embed_dim,
                    TalkingHeads(embed_dim, num_heads, drop_rate),
                    Mlp(embed_dim, 4 * embed_dim, drop_rate),
                    drop_path_rate,
                    init_scale,
                )
                for _ in range(depth)
            ]
        )
        self.blocks_token_only = nn.CellList(
            [ClassBlock(embed_dim, num_heads, 4 * embed_dim, init_scale) for _ in range(2)]
        )
        self.norm = LayerNorm(embed_dim)
        self.head = classifier(embed_dim, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        return self.pos_drop(patches + self.pos_embed.astype(patches.dtype))


def build(*, image_size: int, patch_size: int, **arguments: Any) -> CaiT:
    check_whole_patches(image_size, patch_size)
    return CaiT(image_size=image_size, patch_size=patch_size, **arguments)
