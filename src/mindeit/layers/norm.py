from __future__ import annotations

from mindspore import nn


class LayerNorm(nn.LayerNorm):
    """Over the last axis with the official epsilon (nn.LayerNorm's own default is 1e-7). Parameters: gamma, beta."""

    def __init__(self, dim: int, epsilon: float = 1e-6) -> None:
        super().__init__((dim,), epsilon=epsilon)
