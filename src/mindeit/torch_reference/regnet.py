"""RegNetY."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from mindeit.torch_reference.layers import head_of


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


build = RegNet
