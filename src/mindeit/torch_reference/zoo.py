"""The twins of DeiT III and 3Things, CaiT, ResMLP and PatchConvnet; see `twin`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mindeit.torch_reference.deit import Attention, PatchEmbed, head_of, mlp


def norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=1e-6)


def gain(dim: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(dim))


class Branches(nn.Module):
    """A block whose residual sums are given as (gain, norm, layer) names; gains that are not there are 1."""

    sums: tuple[tuple[tuple[str, str, str], ...], ...]

    def forward(self, x: Tensor) -> Tensor:
        for branches in self.sums:
            x = x + sum(
                self.scaled(which, getattr(self, layer)(getattr(self, norm)(x))) for which, norm, layer in branches
            )
        return x

    def scaled(self, which: str, branch: Tensor) -> Tensor:
        return getattr(self, which) * branch if hasattr(self, which) else branch


class Block(Branches):
    sums = ((("gamma_1", "norm1", "attn"),), (("gamma_2", "norm2", "mlp"),))

    def __init__(self, dim: int, attention: nn.Module, scaled: bool = True, normed: type = norm) -> None:
        super().__init__()
        if scaled:
            self.gamma_1, self.gamma_2 = gain(dim), gain(dim)
        self.norm1, self.attn = normed(dim), attention
        self.norm2, self.mlp = normed(dim), mlp(dim, 4 * dim)


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


class ClassAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, asking: Tensor, seen: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q, asking), (self.k, seen), (self.v, seen))
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class ClassBlock(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int, patches_only: bool = False) -> None:
        super().__init__()
        self.gamma_1, self.gamma_2 = gain(dim), gain(dim)
        self.norm1, self.attn = norm(dim), ClassAttention(dim, heads)
        self.norm2, self.mlp = norm(dim), mlp(dim, hidden)
        self.patches_only = patches_only

    def forward(self, classes: Tensor, patches: Tensor) -> Tensor:
        tokens = self.norm1(torch.cat([classes, patches], 1))
        count = classes.shape[1]
        seen = tokens[:, count:] if self.patches_only else tokens
        classes = classes + self.gamma_1 * self.attn(tokens[:, :count], seen)
        return classes + self.gamma_2 * self.mlp(self.norm2(classes))


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
