"""Scaled dot-product attention over (batch, heads, tokens, head_dim)."""
from __future__ import annotations

from typing import Callable

import mindspore as ms
from mindspore import Tensor, ops

from mindeit.runtime import device


def attention_weights(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Softmax of the scaled scores, (batch, heads, tokens, tokens); in float32 even where the inputs are halves.

    The scale goes to the query: a quarter of the elements of the scores, and exact for the powers of two in use.
    """
    scores = ops.BatchMatMul(transpose_b=True)(query * scale, key)
    return ops.softmax(scores.astype(ms.float32), -1).astype(scores.dtype)


def matmul_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    return ops.BatchMatMul()(attention_weights(query, key, scale), value)


def flash_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """The fused kernel takes half precision only; float32 goes the plain way. Its default scale is 1."""
    if query.dtype == ms.float32:
        return matmul_attention(query, key, value, scale)
    return ops.flash_attention_score(
        query, key, value, head_num=query.shape[1], scalar_value=scale, input_layout="BNSD"
    )


def choose() -> Callable[[Tensor, Tensor, Tensor, float], Tensor]:
    """Only Ascend has a fused kernel."""
    return flash_attention if device.target() == "Ascend" else matmul_attention
