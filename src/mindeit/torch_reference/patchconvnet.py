"""PatchConvnet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mindeit.torch_reference.layers import Branches, ClassBlock, PatchEmbed, gain, head_of, norm


class SqueezeExcite(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(dim, round(dim * 0.25), 1)
        self.conv_expand = nn.Conv2d(round(dim * 0.25), dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_expand(self.conv_reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Convolutions(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv_pos = nn.Sequential(
            nn.Conv2d(dim, dim, 1),
            nn.GELU(),
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim),
            nn.GELU(),
            SqueezeExcite(dim),
            nn.Conv2d(dim, dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        side = round(x.shape[1] ** 0.5)
        return self.qkv_pos(x.transpose(1, 2).unflatten(2, (side, side))).flatten(2).transpose(1, 2)


class ConvBlock(Branches):
    sums = ((("gamma_1", "norm1", "attn"),),)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma_1 = gain(dim)
        self.norm1, self.attn = norm(dim), Convolutions(dim)


def conv_stem(dim: int) -> nn.Module:
    widths, steps = (3, dim // 8, dim // 4, dim // 2, dim), []
    for inputs, outputs in zip(widths, widths[1:]):
        steps += [nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)), nn.GELU()]
    return nn.Sequential(*steps[:-1])


class PatchConvnet(nn.Module):
    def __init__(
        self, embed_dim: int, depth: int, init_scale: float, token_per_class: bool, num_classes: int, image_size: int
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, num_classes if token_per_class else 1, embed_dim))
        self.patch_embed = PatchEmbed(embed_dim, 16, conv_stem(embed_dim))
        self.blocks = nn.Sequential(*(ConvBlock(embed_dim) for _ in range(depth)))
        self.blocks_token_only = nn.ModuleList([ClassBlock(embed_dim, 1, 3 * embed_dim, token_per_class)])
        self.norm = norm(embed_dim)
        heads = (nn.Linear(embed_dim, 1) for _ in range(num_classes))
        self.head = nn.ModuleList(heads) if token_per_class else head_of(embed_dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.blocks(self.patch_embed(images))
        classes = self.cls_token.expand(len(images), -1, -1)
        for block in self.blocks_token_only:
            classes = block(classes, patches)
        classes = self.norm(classes)
        if isinstance(self.head, nn.ModuleList):
            return torch.cat([head(classes[:, number]) for number, head in enumerate(self.head)], 1)
        return self.head(classes[:, 0])


build = PatchConvnet
