"""DeiT and distilled DeiT (https://arxiv.org/abs/2012.12877), after models.py of facebookresearch/deit."""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindeit.layers.block import TransformerBlock
from mindeit.layers.linear import classifier
from mindeit.layers.norm import LayerNorm
from mindeit.layers.patch_embed import PatchEmbed, check_whole_patches
from mindeit.layers.weight_init import truncated_normal
from mindeit.models.backbone import Transformer, repeated


class DeiT(Transformer):
    """Images (batch, 3, S, S) -> logits (batch, num_classes); features (batch, embed_dim) where num_classes is 0.

    A distilled model returns ``(cls_logits, dist_logits)`` in training and their mean in evaluation.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        distilled: bool,
        num_classes: int,
        image_size: int,
        drop_path_rate: float,
        drop_rate: float,
        in_channels: int = 3,
    ) -> None:
        super().__init__(
            num_classes=num_classes, image_size=image_size, num_features=embed_dim, in_channels=in_channels
        )
        self.distilled = distilled
        self.extra_tokens = self.tokens_in_blocks = 2 if distilled else 1
        self.patch_embed = PatchEmbed(image_size, patch_size, embed_dim, in_channels=in_channels)
        tokens = self.patch_embed.num_patches + self.extra_tokens
        self.cls_token = Parameter(truncated_normal((1, 1, embed_dim)), name="cls_token")
        self.pos_embed = Parameter(truncated_normal((1, tokens, embed_dim)), name="pos_embed")
        if distilled:
            self.dist_token = Parameter(truncated_normal((1, 1, embed_dim)), name="dist_token")
        self.pos_drop = nn.Dropout(p=drop_rate)
        drop_paths = np.linspace(0, drop_path_rate, depth).tolist()  # linear over depth, none in the first block
        self.blocks = nn.CellList(
            [TransformerBlock(embed_dim, num_heads, rate, drop_rate=drop_rate) for rate in drop_paths]
        )
        self.norm = LayerNorm(embed_dim)
        self.head = classifier(embed_dim, num_classes)
        if distilled:
            self.head_dist = classifier(embed_dim, num_classes)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        if not self.distilled:
            return features[:, 0] if pre_logits else self.head(features[:, 0])
        if pre_logits:
            return (features[:, 0] + features[:, 1]) / 2
        logits, dist_logits = self.head(features[:, 0]), self.head_dist(features[:, 1])
        if self.training:
            return logits, dist_logits
        return (logits + dist_logits) / 2

    def both_heads(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``(cls_logits, dist_logits)`` of a distilled model, in training or not."""
        return self.heads_of(self.forward_features(images))

    def heads_of(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """``forward_features``' result -> ``(cls_logits, dist_logits)``."""
        return self.head(tokens[:, 0]), self.head_dist(tokens[:, 1])

    def reset_classifier(self, num_classes: int) -> None:
        super().reset_classifier(num_classes)
        if self.distilled:
            self.head_dist = classifier(self.num_features, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        tokens: tuple[Tensor, ...] = (repeated(self.cls_token, patches), patches)
        if self.distilled:
            tokens = (tokens[0], repeated(self.dist_token, patches), patches)
        return self.pos_drop(ops.concat(tokens, 1) + self.pos_embed)


def build(*, image_size: int, patch_size: int, **arguments: Any) -> DeiT:
    check_whole_patches(image_size, patch_size)
    return DeiT(image_size=image_size, patch_size=patch_size, **arguments)
