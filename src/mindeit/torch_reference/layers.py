"""What several families share."""

from __future__ import annotations

from collections import OrderedDict
from typing import Callable

import torch
from torch import Tensor, nn


def norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=1e-6)


def gain(dim: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(dim))


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


class Branches(nn.Module):
    """A block whose residual sums are given as (gain, norm, layer) names; gains that are not there are 1."""

    sums: tuple[tuple[tuple[str, str, str], ...], ...]

    def forward(self, x: Tensor) -> Tensor:
        for branches in self.sums:
            first, *others = (
                self.scaled(which, getattr(self, layer)(getattr(self, norm)(x))) for which, norm, layer in branches
            )
            x = x + sum(others, first)
        return x

    def scaled(self, which: str, branch: Tensor) -> Tensor:
        return getattr(self, which) * branch if hasattr(self, which) else branch


class Block(Branches):
    sums = ((("gamma_1", "norm1", "attn"),), (("gamma_2", "norm2", "mlp"),))

    def __init__(
        self, dim: int, attention: nn.Module, scaled: bool = True, normed: Callable[[int], nn.Module] = norm
    ) -> None:
        super().__init__()
        if scaled:
            self.gamma_1, self.gamma_2 = gain(dim), gain(dim)
        self.norm1, self.attn = normed(dim), attention
        self.norm2, self.mlp = normed(dim), mlp(dim, 4 * dim)


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


class PatchEmbed(nn.Module):
    def __init__(self, dim: int, patch: int, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.proj = projection or nn.Conv2d(3, dim, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)
