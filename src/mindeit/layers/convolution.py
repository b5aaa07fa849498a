"""Convolutions of images, channels first."""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn

from mindeit.kernels import convolution


class Convolution(nn.Conv2d):
    """MindSpore's layer, padded by half the kernel and computed in the device's best way. ``more`` is as there."""

    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1, **more: Any) -> None:
        super().__init__(channels, out, kernel, stride, "pad", kernel // 2, **more)
        self.convolve = convolution.choose(self.conv2d, stride)

    def construct(self, images: Tensor) -> Tensor:
        result = self.convolve(images, self.weight)
        return self.bias_add(result, self.bias) if self.has_bias else result
