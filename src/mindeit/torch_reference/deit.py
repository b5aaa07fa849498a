"""The same networks in plain PyTorch, written from the official definition: the other side of ``--verify``.

State dicts equal the official ones name by name, so an official file loads strictly.
Nothing here is shared with the MindSpore models; that is what makes agreement a proof.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from mindeit.models.registry import spec


def build_twin(name: str, *, num_classes: int, image_size: int) -> nn.Module:
    """The PyTorch model ``name`` in evaluation mode."""
    from mindeit.torch_reference import zoo as zoo

    kinds = {
        "deit": DeiT,
        "deit3": zoo.DeiT3,
        "cait": zoo.CaiT,
        "resmlp": zoo.ResMLP,
        "patchconvnet": zoo.PatchConvnet,
        "regnet": RegNet,
    }
    row = spec(name)
    return kinds[row.family](**row.variant, num_classes=num_classes, image_size=image_size).eval()


def head_of(features: int, num_classes: int) -> nn.Module:
    return nn.Linear(features, num_classes) if num_classes else nn.Identity()


def mlp(dim: int, hidden: int) -> nn.Module:
    return nn.Sequential(OrderedDict(fc1=nn.Linear(dim, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, dim)))


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, dim: int, patch: int, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.proj = projection or nn.Conv2d(3, dim, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


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
        self.blocks = nn.Sequential(*(Block(embed_dim, num_heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
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


class ConvNorm(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, squeeze-excite (a quarter of the block's *input* width), 1x1, shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, group_width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, width)
        self.conv2 = ConvNorm(width, width, 3, stride, width // group_width)
        self.se = SqueezeExcite(width, round(inputs * 0.25))
        self.conv3 = ConvNorm(width, width, act=False)
        same = inputs == width and stride == 1
        self.downsample = None if same else ConvNorm(inputs, width, stride=stride, act=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return (self.conv3(self.se(self.conv2(self.conv1(x)))) + shortcut).relu()


class RegNet(nn.Module):
    """(B, 3, S, S) -> (B, num_classes), of any S; four stages, each halving the resolution."""

    def __init__(
        self, widths: tuple[int, ...], depths: tuple[int, ...], group_width: int, num_classes: int, image_size: int
    ) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, 3, 2)
        inputs = 32
        for stage, (width, depth) in enumerate(zip(widths, depths), start=1):
            blocks = OrderedDict()
            for block in range(1, depth + 1):
                blocks[f"b{block}"] = Bottleneck(inputs, width, 2 if block == 1 else 1, group_width)
                inputs = width
            self.add_module(f"s{stage}", nn.Sequential(blocks))
        self.stages = len(depths)
        self.head = nn.Sequential(OrderedDict(fc=head_of(inputs, num_classes)))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"s{stage}")(x)
        return self.head(x.mean((2, 3)))
