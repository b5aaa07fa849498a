"""RegNetY, the convolutional teacher of the distilled models (https://arxiv.org/abs/2003.13678), names as in timm.

An own cell instead of MindCV's regnet_y_16gf: the parameters keep the official names, so the teacher's file loads
strictly through the same converter as every student.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal, Normal

from mindeit.errors import UserError
from mindeit.layers.convolution import Convolution
from mindeit.layers.weight_init import uniform
from mindeit.models.image_model import ImageModel


class ConvNorm(nn.Cell):
    """Bias-free convolution padded to keep the size (before its stride), batch norm, ReLU unless a sum follows."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        group: int = 1,
        relu: bool = True,
        gamma: str = "ones",
    ) -> None:
        super().__init__()
        self.conv = Convolution(channels, out, kernel, stride, group=group, weight_init=HeNormal(mode="fan_out"))
        self.bn = nn.BatchNorm2d(out, eps=1e-5, momentum=0.9, gamma_init=gamma)
        self.relu = relu

    def construct(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return ops.relu(x) if self.relu else x


class SqueezeExcite(nn.Cell):
    """Scale each channel by a gate computed from the channels' means."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.fc1 = self._pointwise(channels, reduced)
        self.fc2 = self._pointwise(reduced, channels)

    @staticmethod
    def _pointwise(channels: int, out: int) -> Convolution:
        bias = uniform((out,), channels**-0.5)
        return Convolution(channels, out, has_bias=True, weight_init=HeNormal(mode="fan_out"), bias_init=bias)

    def construct(self, x: Tensor) -> Tensor:
        means = ops.mean(x, (2, 3), True)
        return x * ops.sigmoid(self.fc2(ops.relu(self.fc1(means))))


class Bottleneck(nn.Cell):
    """1x1, grouped 3x3, squeeze-excite (a quarter of the block's input channels), 1x1, plus the shortcut."""

    def __init__(self, channels: int, out: int, stride: int, group_width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, out)
        self.conv2 = ConvNorm(out, out, 3, stride, group=out // group_width)
        self.se = SqueezeExcite(out, round(channels * 0.25))
        self.conv3 = ConvNorm(out, out, relu=False, gamma="zeros")  # a block starts as its shortcut alone
        changes = stride != 1 or channels != out
        self.downsample = ConvNorm(channels, out, stride=stride, relu=False) if changes else nn.Identity()

    def construct(self, x: Tensor) -> Tensor:
        return ops.relu(self.conv3(self.se(self.conv2(self.conv1(x)))) + self.downsample(x))


class Classifier(nn.Cell):
    """Mean over the image, then a linear layer; the mean alone where num_classes is 0."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Dense(channels, num_classes, Normal(0.01), "zeros") if num_classes else nn.Identity()

    def construct(self, x: Tensor) -> Tensor:
        return self.fc(ops.mean(x, (2, 3)))


def _stage(channels: int, width: int, depth: int, group_width: int) -> nn.SequentialCell:
    """Blocks b1, b2, ...; the first halves the size and changes the width."""
    first = ("b1", Bottleneck(channels, width, 2, group_width))
    others = [(f"b{i}", Bottleneck(width, width, 1, group_width)) for i in range(2, depth + 1)]
    return nn.SequentialCell(OrderedDict([first, *others]))


class RegNet(ImageModel):
    """Images (batch, 3, S, S) -> logits (batch, num_classes)."""

    STEM_WIDTH = 32

    def __init__(
        self,
        *,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        group_width: int,
        num_classes: int,
        image_size: int,
        in_channels: int = 3,
    ) -> None:
        super().__init__(
            num_classes=num_classes, image_size=image_size, num_features=widths[-1], in_channels=in_channels
        )
        self.stem = ConvNorm(in_channels, self.STEM_WIDTH, 3, 2)
        inputs = (self.STEM_WIDTH, *widths[:-1])
        stages = [_stage(*stage, group_width) for stage in zip(inputs, widths, depths)]
        self.s1, self.s2, self.s3, self.s4 = stages
        self.head = Classifier(widths[-1], num_classes)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return ops.mean(features, (2, 3)) if pre_logits else self.head(features)

    def get_classifier(self) -> nn.Cell:
        return self.head.fc

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes, self.head = num_classes, Classifier(self.num_features, num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        """The last stage's map, (batch, widths[-1], S / 32, S / 32)."""
        return self.s4(self.s3(self.s2(self.s1(self.stem(images)))))


def build(*, drop_path_rate: float, drop_rate: float, **arguments: Any) -> RegNet:
    if drop_path_rate or drop_rate:
        raise UserError("a RegNet has no dropout: drop_path_rate and drop_rate must be 0")
    return RegNet(**arguments)
