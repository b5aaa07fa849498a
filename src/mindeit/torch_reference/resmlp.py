"""ResMLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mindeit.torch_reference.layers import Block, PatchEmbed, head_of


class Affine(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * x + self.beta


class PatchMix(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ResMLP(nn.Module):
    def __init__(
        self, embed_dim: int, depth: int, patch_size: int, init_scale: float, num_classes: int, image_size: int
    ) -> None:
        super().__init__()
        patches = (image_size // patch_size) ** 2
        self.patch_embed = PatchEmbed(embed_dim, patch_size)
        self.blocks = nn.Sequential(
            *(Block(embed_dim, PatchMix(patches, patches), normed=Affine) for _ in range(depth))
        )
        self.norm = Affine(embed_dim)
        self.head = head_of(embed_dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patch_embed(images))).mean(1))


build = ResMLP
