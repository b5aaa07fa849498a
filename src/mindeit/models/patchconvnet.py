"""PatchConvnet (https://arxiv.org/abs/2112.13692), after patchconvnet_models.py of facebookresearch/deit."""

from __future__ import annotations

from typing import Any

from mindspore import Parameter, Tensor, nn, ops

from mindeit.errors import UserError
from mindeit.kernels import depthwise, gain, gelu, linear, mean
from mindeit.layers.class_attention import ClassBlock
from mindeit.layers.convolution import Convolution
from mindeit.layers.counted import Counted
from mindeit.layers.layer_scale import layer_scale
from mindeit.layers.linear import Linear, classifier
from mindeit.layers.nested_conv import NestedConv
from mindeit.layers.norm import LayerNorm
from mindeit.layers.patch_embed import PatchEmbed, check_whole_patches
from mindeit.layers.residual import Residual
from mindeit.layers.weight_init import truncated_normal, uniform
from mindeit.models.backbone import LateClassTokens

PATCH_SIZE = 16


class ConvStem(nn.SequentialCell):
    """Four 3x3 convolutions, each halving the size: (batch, channels, S, S) -> (batch, S * S / 256, embed_dim)."""

    def __init__(self, embed_dim: int, in_channels: int = 3) -> None:
        first, second, third = (
            _halving(*widths)
            for widths in (
                (in_channels, embed_dim // 8),
                (embed_dim // 8, embed_dim // 4),
                (embed_dim // 4, embed_dim // 2),
            )
        )
        super().__init__(
            first, gelu.choose(), second, gelu.choose(), third, gelu.choose(), _halving(embed_dim // 2, embed_dim)
        )

    def construct(self, images: Tensor) -> Tensor:
        x = images
        for step in self.cell_list:
            x = step(x)
        return ops.transpose(ops.reshape(x, x.shape[:2] + (-1,)), (0, 2, 1))


def _halving(channels: int, out: int) -> nn.SequentialCell:
    """The official sequence of one convolution, for its name's sake."""
    weight = uniform((out, channels, 3, 3), (9 * channels) ** -0.5)
    return nn.SequentialCell(Convolution(channels, out, 3, 2, weight_init=weight))


class DepthwiseGelu(Counted, nn.Cell):
    """GELU of a 3x3 convolution of each channel for itself, on patches of a square grid: (batch, patches, dim) -> the
    same."""

    def __init__(self, dim: int, grid: int) -> None:
        super().__init__()
        self.fan_in = 9
        self.weight = Parameter(uniform((dim, 1, 3, 3), 1 / 3), name="weight")
        self.bias = Parameter(uniform((dim,), 1 / 3), name="bias")
        self.conv = depthwise.choose(dim, grid)

    def construct(self, x: Tensor) -> Tensor:
        return self.conv(x, self.weight, self.bias)


class SqueezeExcite(nn.Cell):
    """Scale each channel by a gate computed from the channels' means over the patches."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_reduce = NestedConv(dim, round(dim * 0.25))
        self.conv_expand = NestedConv(round(dim * 0.25), dim)
        self.mean, self.gain = mean.choose(), gain.choose()

    def construct(self, x: Tensor) -> Tensor:
        return self.gain(x, ops.sigmoid(self.conv_expand(ops.relu(self.conv_reduce(self.mean(x))))))


class Convolutions(nn.Cell):
    """What stands in attention's place: pointwise, depthwise, squeeze-excite, pointwise; (batch, patches, dim)."""

    def __init__(self, dim: int, grid: int) -> None:
        super().__init__()
        self.qkv_pos = nn.SequentialCell(
            NestedConv(dim, dim, product=linear.choose_with_gelu(linear.choose_convolution)),
            nn.Identity(),  # where the official model has the GELU
            DepthwiseGelu(dim, grid),
            nn.Identity(),  # likewise
            SqueezeExcite(dim),
            NestedConv(dim, dim),
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.qkv_pos(x)


class ConvBlock(nn.Cell):
    """One residual branch: (batch, patches, dim) -> the same."""

    def __init__(self, dim: int, grid: int, drop_path: float, init_scale: float) -> None:
        super().__init__()
        self.gamma_1 = layer_scale(dim, init_scale)
        self.norm1, self.attn = LayerNorm(dim), Convolutions(dim, grid)
        self.residual = Residual(drop_path)

    def construct(self, x: Tensor) -> Tensor:
        return self.residual(x, self.attn(self.norm1(x)), self.gamma_1)


class HeadPerClass(Counted, nn.SequentialCell):
    """Each class token's own score: (batch, classes, dim) -> (batch, classes). Parameters as official: 0.weight, ..."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__(*(Linear(dim, 1) for _ in range(num_classes)))
        self.fan_in = dim
        self.weights = tuple(linear.weight for linear in self.cell_list)
        self.biases = tuple(linear.bias for linear in self.cell_list)

    def construct(self, tokens: Tensor) -> Tensor:
        return ops.sum(tokens * ops.concat(self.weights, 0), -1) + ops.concat(self.biases, 0)


class PatchConvnet(LateClassTokens):
    """Images (batch, 3, S, S) -> logits (batch, num_classes); features (batch, embed_dim) where num_classes is 0.

    A column of convolutions at one resolution, with the same drop path throughout, then one block of class attention,
    whose weights are the model's image of what it saw. ``token_per_class`` gives each class such a token and image.
    """

    blocks_attend = False

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        init_scale: float,
        token_per_class: bool,
        num_classes: int,
        image_size: int,
        drop_path_rate: float,
        drop_rate: float,
        in_channels: int = 3,
    ) -> None:
        super().__init__(
            num_classes=num_classes, image_size=image_size, num_features=embed_dim, in_channels=in_channels
        )
        self.token_per_class = token_per_class
        self.extra_tokens = 0 if token_per_class else 1
        self.patch_embed = PatchEmbed(image_size, PATCH_SIZE, embed_dim, ConvStem(embed_dim, in_channels), in_channels)
        classes, grid = num_classes if token_per_class else 1, image_size // PATCH_SIZE
        self.cls_token = Parameter(truncated_normal((1, classes, embed_dim)), name="cls_token")
        self.blocks = nn.CellList([ConvBlock(embed_dim, grid, drop_path_rate, init_scale) for _ in range(depth)])
        self.blocks_token_only = nn.CellList(
            [ClassBlock(embed_dim, 1, 3 * embed_dim, init_scale, drop_rate, see_patches_only=token_per_class)]
        )
        self.norm = LayerNorm(embed_dim)
        if token_per_class:
            self.head = HeadPerClass(embed_dim, num_classes)
        else:
            self.head = classifier(embed_dim, num_classes)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """``pre_logits`` of a model with a token for each class: (batch, classes, dim)."""
        taken = features[:, : self.num_classes] if self.token_per_class else features[:, 0]
        return taken if pre_logits else self.head(taken)

    def reset_classifier(self, num_classes: int) -> None:
        if self.token_per_class:
            raise UserError("this model has a token for each class: create it anew with another num_classes")
        super().reset_classifier(num_classes)

    def embed(self, images: Tensor) -> Tensor:
        return self.patch_embed(images)


def build(*, image_size: int, num_classes: int, token_per_class: bool = False, **arguments: Any) -> PatchConvnet:
    check_whole_patches(image_size, PATCH_SIZE)
    if token_per_class and not num_classes:
        raise UserError("num_classes is 0; a model with a token for each class needs at least 1")
    return PatchConvnet(image_size=image_size, num_classes=num_classes, token_per_class=token_per_class, **arguments)
