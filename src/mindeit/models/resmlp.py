"""ResMLP (https://arxiv.org/abs/2105.03404), after resmlp_models.py of facebookresearch/deit."""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn, ops

from mindeit.kernels import mixing
from mindeit.layers.affine import Affine
from mindeit.layers.block import Block
from mindeit.layers.linear import Linear, classifier
from mindeit.layers.mlp import Mlp
from mindeit.layers.patch_embed import PatchEmbed, check_whole_patches
from mindeit.models.backbone import Backbone


class PatchMix(Linear):
    """(batch, patches, dim) -> the same: each patch becomes a mixture of all, channel by channel."""

    def __init__(self, patches: int) -> None:
        super().__init__(patches, patches, mixing.choose())
        self.bias_along_patches = ops.BiasAdd()

    def construct(self, x: Tensor) -> Tensor:
        mixed = self.product(x, self.weight)
        return self.bias_along_patches(mixed, self.bias.astype(mixed.dtype))


class ResMLP(Backbone):
    """Images (batch, 3, S, S) -> logits (batch, num_classes); features (batch, embed_dim) where num_classes is 0.

    No attention, no norm, no class token. The number of patches is in its weights: another ``image_size`` is another
    model.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
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
        patches = self.patch_embed.num_patches
        self.blocks = nn.CellList(
            [
                Block(
                    embed_dim,
                    PatchMix(patches),
                    Mlp(embed_dim, 4 * embed_dim, drop_rate),
                    drop_path_rate,
                    init_scale,
                    norm=Affine,
                )
                for _ in range(depth)
            ]
        )
        self.norm = Affine(embed_dim)
        self.head = classifier(embed_dim, num_classes)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        mean = ops.mean(features, 1)
        return mean if pre_logits else self.head(mean)

    def embed(self, images: Tensor) -> Tensor:
        return self.patch_embed(images)


def build(*, image_size: int, patch_size: int, **arguments: Any) -> ResMLP:
    check_whole_patches(image_size, patch_size)
    return ResMLP(image_size=image_size, patch_size=patch_size, **arguments)
