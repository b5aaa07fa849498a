"""DeiT III and the models of 3Things."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mindeit.torch_reference.layers import Attention, Block, Branches, PatchEmbed, gain, head_of, mlp, norm


class ParallelBlock(Branches):
    sums = (
        (("gamma_1", "norm1", "attn"), ("gamma_1_1", "norm11", "attn1")),
        (("gamma_2", "norm2", "mlp"), ("gamma_2_1", "norm21", "mlp1")),
    )

    def __init__(self, dim: int, heads: int, scaled: bool) -> None:
        super().__init__()
        if scaled:
            self.gamma_1, self.gamma_1_1, self.gamma_2, self.gamma_2_1 = (gain(dim) for _ in range(4))
        self.norm1, self.norm11 = norm(dim), norm(dim)
        self.attn, self.attn1 = Attention(dim, heads), Attention(dim, heads)
        self.norm2, self.norm21 = norm(dim), norm(dim)
        self.mlp, self.mlp1 = mlp(dim, 4 * dim), mlp(dim, 4 * dim)


def nested_stem(dim: int) -> nn.Module:
    quarter = dim // 4
    return nn.Sequential(
        nn.Conv2d(3, quarter, 4, 4),
        nn.BatchNorm2d(quarter),
        nn.GELU(),
        nn.Conv2d(quarter, quarter, 2, 2),
        nn.BatchNorm2d(quarter),
        nn.GELU(),
        nn.Conv2d(quarter, dim, 2, 2),
        nn.BatchNorm2d(dim),
    )


class DeiT3(nn.Module):
    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        parallel: bool,
        init_scale: float | None,
        hmlp_stem: bool,
        num_classes: int,
        image_size: int,
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, (image_size // patch_size) ** 2, embed_dim))
        self.patch_embed = PatchEmbed(embed_dim, patch_size, nested_stem(embed_dim) if hmlp_stem else None)
        scaled = init_scale is not None
        self.blocks = nn.Sequential(
            *(
                ParallelBlock(embed_dim, num_heads, scaled)
                if parallel
                else Block(embed_dim, Attention(embed_dim, num_heads), scaled)
                for _ in range(depth)
            )
        )
        self.norm = norm(embed_dim)
        self.head = head_of(embed_dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images) + self.pos_embed
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], 1)
        return self.head(self.norm(self.blocks(x))[:, 0])


build = DeiT3
