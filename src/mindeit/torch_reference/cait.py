"""CaiT."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mindeit.torch_reference.layers import Block, ClassBlock, PatchEmbed, head_of, norm


class TalkingHeads(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.proj_l, self.proj_w = nn.Linear(heads, heads), nn.Linear(heads, heads)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = torch.einsum("bhqd,bhkd->bqkh", query * query.shape[-1] ** -0.5, key)
        weights = self.proj_w(self.proj_l(scores).softmax(2))
        return self.proj(torch.einsum("bqkh,bhkd->bqhd", weights, value).flatten(2))


class CaiT(nn.Module):
    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        init_scale: float,
        num_classes: int,
        image_size: int,
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, (image_size // patch_size) ** 2, embed_dim))
        self.patch_embed = PatchEmbed(embed_dim, patch_size)
        self.blocks = nn.Sequential(*(Block(embed_dim, TalkingHeads(embed_dim, num_heads)) for _ in range(depth)))
        self.blocks_token_only = nn.ModuleList(ClassBlock(embed_dim, num_heads, 4 * embed_dim) for _ in range(2))
        self.norm = norm(embed_dim)
        self.head = head_of(embed_dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.blocks(self.patch_embed(images) + self.pos_embed)
        classes = self.cls_token.expand(len(images), -1, -1)
        for block in self.blocks_token_only:
            classes = block(classes, patches)
        return self.head(self.norm(classes)[:, 0])


build = CaiT
