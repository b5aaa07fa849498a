"""Networks that take images as they travel to the device."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn


class Normalised(nn.Cell):
    """``network`` on normalised images; what follows these is handed on.

    Images are (B, 3, S, S). uint8, levels 0..255, is normalised first, in the steps of `data.transforms.Normalize`;
    float32 is normalised already. So a graph is made for what comes, and nobody has to tell it.
    """

    def __init__(self, network: nn.Cell, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(auto_prefix=False)  # parameters keep the names they have in checkpoints
        self.network = network
        self.mean, self.std = (Tensor(np.array(values, np.float32).reshape(-1, 1, 1)) for values in (mean, std))

    def construct(self, images: Tensor, *others: Tensor) -> Tensor:
        if images.dtype == ms.uint8:
            images = (images.astype(ms.float32) / 255 - self.mean) / self.std
        return self.network(images, *others)
