"""What a model looked at, computed inside an exported graph: the maps of `mindeit.predict.attention_maps`."""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindeit.errors import UserError
from mindeit.kernels.float32 import Float32
from mindeit.models.backbone import LateClassTokens, Transformer


class AttentionOutput(Float32):
    """Every block's weights -> rollout (batch, grid, grid) and the last block's heads (batch, heads, grid, grid).

    The rollout is followed backwards, from the class token through the last block to the first: one row by matrices,
    where `attention_maps.rollout` multiplies matrices and takes a row of the result.
    """

    def __init__(self, model: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.late = isinstance(model, LateClassTokens)
        self.extra = model.extra_tokens
        self.asking = len(model.blocks_token_only) if self.late else 0
        patches = model.patch_embed.num_patches
        self.side = math.isqrt(patches)
        first = np.zeros((1, 1, self.extra + patches), np.float32)
        first[..., 0] = 1
        self.class_token = Tensor(first)

    def construct(self, blocks: list[Tensor]) -> tuple[Tensor, Tensor]:
        means = [ops.mean(block.astype(ms.float32), 1) for block in blocks]
        among = len(means) - self.asking
        seen = self.gathered(means[among:]) if self.late else self.class_token
        for number in range(among):
            seen = 0.5 * (ops.matmul(seen, means[among - 1 - number]) + seen)
        rows = seen if self.late else seen[:, :, self.extra :]
        heads = blocks[-1][:, :, 0, self.extra :]
        maps = ops.reshape(rows, (-1, self.side, self.side))
        return maps, ops.reshape(heads, (-1, heads.shape[1], self.side, self.side))

    def gathered(self, means: list[Tensor]) -> Tensor:
        """Of class tokens that join late: what such a one took from each patch, (batch, 1, patches)."""
        seen = 0.5 * means[0][:, :1, self.extra :]  # a fresh one holds nothing of any patch
        for mean in means[1:]:
            own = ops.sum(mean[:, :1, : self.extra], -1, True)
            seen = 0.5 * (own * seen + mean[:, :1, self.extra :]) + 0.5 * seen
        return seen


def has_attention(model: nn.Cell) -> bool:
    """Whether `AttentionOutput` can show it."""
    return isinstance(model, (Transformer, LateClassTokens)) and not model.token_per_class


def check_attention(model: nn.Cell, name: str) -> None:
    if not isinstance(model, (Transformer, LateClassTokens)):
        raise UserError(f"{name} has no attention to show; allowed: --outputs logits, features or both")
    if model.token_per_class:
        raise UserError(
            f"{name} has a token for each class, and what is seen depends on which is asked; allowed: --outputs logits"
        )
