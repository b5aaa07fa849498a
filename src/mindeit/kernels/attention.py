"""Scaled dot-product attention: of query, key and value (batch, heads, tokens, head_dim), the first two axes in either
order, or of the product that holds all three (batch, tokens, 3 * dim)."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindeit.kernels import heads
from mindeit.kernels.float32 import Float32
from mindeit.kernels.native import operators
from mindeit.runtime import device


class Softmax(Float32):
    """Over the last axis. Row sums of its gradient are taken, and spread along the rows again, by products with ones.

    On CPU ReduceSum is slow on odd lengths, and broadcasting keeps copies of its inputs as long as the graph lives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.softmax, self.product, self.spread = ops.Softmax(-1), ops.BatchMatMul(), ops.BatchMatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        return self.softmax(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        shares, column = out * dout, ops.ones(out.shape[:-2] + (out.shape[-1], 1), out.dtype)
        sums = self.spread(self.product(shares, column), column)
        return (shares - out * sums,)


class Float32Softmax(nn.Cell):
    """Over the last axis, in float32 even where input and output are half precision."""

    def __init__(self, softmax: nn.Cell) -> None:
        super().__init__()
        self.softmax = softmax

    def construct(self, x: Tensor) -> Tensor:
        return self.softmax(x.astype(ms.float32)).astype(x.dtype)


class GpuSoftmax(nn.Cell):
    """The same without casts: the kernel reads and writes halves and computes in float32 inside. Half as much is kept
    for the gradient, which is taken in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax = ops.Softmax(-1)

    def construct(self, x: Tensor) -> Tensor:
        return self.softmax(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        out = out.astype(ms.float32)
        shares = out * dout.astype(ms.float32)
        return (ops.addcmul(shares, out, ops.sum(shares, -1, keepdim=True), -1.0).astype(x.dtype),)


def choose_softmax() -> nn.Cell:
    """By ``device.target()``: CPU's own gradient, a GPU's kernel for halves, or the plain form."""
    if device.target() == "GPU":
        return GpuSoftmax()
    return Float32Softmax(Softmax() if device.target() == "CPU" else ops.Softmax(-1))


class MatmulAttention(nn.Cell):
    """(query, key, value, scale) -> mixed values. The softmax is taken in float32 even where the inputs are halves."""

    def __init__(self) -> None:
        super().__init__()
        self.normalised = choose_softmax()
        self.scores, self.mix = ops.BatchMatMul(transpose_b=True), ops.BatchMatMul()

    def construct(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return self.mix(self.weights(query, key, scale), value)

    def weights(self, query: Tensor, key: Tensor, scale: float) -> Tensor:
        """(batch, heads, tokens, tokens); scaling the query touches a quarter of the elements that the scores have."""
        return self.normalised(self.scores(query * scale, key))


class FlashAttention(MatmulAttention):
    """The fused kernel takes half precision only; float32 uses the plain form. Its default scale is 1."""

    def construct(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        if query.dtype == ms.float32:
            return self.mix(self.weights(query, key, scale), value)
        return ops.flash_attention_score(
            query, key, value, head_num=query.shape[1], scalar_value=scale, input_layout="BNSD"
        )


def choose() -> MatmulAttention:
    """Only Ascend has a fused kernel."""
    return FlashAttention() if device.target() == "Ascend" else MatmulAttention()


class StackedAttention(nn.Cell):
    """The product -> mixed values (batch, tokens, dim)."""

    def __init__(self, divided: nn.Cell, attend: MatmulAttention) -> None:
        super().__init__()
        self.heads, self.attend = divided, attend

    def construct(self, stacked: Tensor) -> Tensor:
        query, key, value = self.heads.divide(stacked)
        return self.heads.merge(self.attend(query, key, value, query.shape[-1] ** -0.5))


class FusedAttention(nn.Cell):
    """In one operator, for float32: scores never reach memory."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.fused = num_heads, operators.attention(False)
        self.plain = StackedAttention(heads.StackedHeads(num_heads), MatmulAttention())

    def multiply_in_bfloat16(self) -> None:
        self.fused = operators.attention(True)

    def construct(self, stacked: Tensor) -> Tensor:
        if stacked.dtype != ms.float32:
            return self.plain(stacked)
        batch, tokens, width = stacked.shape
        return self.fused(ops.reshape(stacked, (batch, tokens, 3, self.num_heads, width // (3 * self.num_heads))))


def choose_stacked(num_heads: int) -> nn.Cell:
    return FusedAttention(num_heads) if operators.available() else StackedAttention(heads.choose(num_heads), choose())
