"""DeiT and distilled DeiT."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mindeit.torch_reference.layers import Attention, Block, PatchEmbed, head_of, norm


class DeiT(nn.Module):
    """(B, 3, S, S) -> (B, num_classes); a distilled model gives the mean of its two heads."""

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        distilled: bool,
        num_classes: int,
        image_size: int,
    ) -> None:
        super().__init__()
        tokens = (image_size // patch_size) ** 2 + 1 + distilled
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, embed_dim))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if distilled else None
        self.patch_embed = PatchEmbed(embed_dim, patch_size)
        self.blocks = nn.Sequential(
            *(Block(embed_dim, Attention(embed_dim, num_heads), scaled=False) for _ in range(depth))
        )
        self.norm = norm(embed_dim)
        self.head = head_of(embed_dim, num_classes)
        self.head_dist = head_of(embed_dim, num_classes) if distilled else None

    def forward(self, images: Tensor) -> Tensor:
        tokens = [self.cls_token] if self.dist_token is None else [self.cls_token, self.dist_token]
        patches = self.patch_embed(images)
        x = torch.cat([*(token.expand(len(images), -1, -1) for token in tokens), patches], dim=1)
        x = self.norm(self.blocks(x + self.pos_embed))
        if self.head_dist is None:
            return self.head(x[:, 0])
        return (self.head(x[:, 0]) + self.head_dist(x[:, 1])) / 2


build = DeiT
