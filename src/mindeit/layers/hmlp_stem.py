from __future__ import annotations

from mindspore import Tensor, nn, ops

from mindeit.kernels import gelu
from mindeit.layers.nested_conv import NestedConv, nested_pixels


class HMLPStem(nn.SequentialCell):
    """3Things' hierarchical MLP stem: (batch, channels, S, S) -> (batch, patches, embed_dim), patches of 16 pixels.

    Pixels become squares of 4, 8 and 16, never seeing another patch; batch norm after each step. Parameters are those
    of the official ``hMLP_stem``'s sequence.
    """

    def __init__(self, embed_dim: int, in_channels: int = 3) -> None:
        quarter = embed_dim // 4
        super().__init__(
            NestedConv(in_channels, quarter, 4),
            nn.BatchNorm1d(quarter, eps=1e-5, momentum=0.9),
            gelu.choose(),
            NestedConv(quarter, quarter, 2),
            nn.BatchNorm1d(quarter, eps=1e-5, momentum=0.9),
            gelu.choose(),
            NestedConv(quarter, embed_dim, 2),
            nn.BatchNorm1d(embed_dim, eps=1e-5, momentum=0.9),
        )
        self.embed_dim = embed_dim

    def construct(self, images: Tensor) -> Tensor:
        rows = nested_pixels(images, 16, 8, 4)
        for step in self.cell_list:
            rows = step(rows)
        return ops.reshape(rows, (images.shape[0], -1, self.embed_dim))
