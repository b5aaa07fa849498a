"""Layer normalisation over the last axis, with gain gamma and offset beta (dim,)."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, mint, nn, ops

from mindeit.kernels.native import operators
from mindeit.runtime import device


class NativeLayerNorm(nn.Cell):
    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.normalise = ops.LayerNorm(-1, -1, epsilon)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return self.normalise(x, gamma, beta)[0]


class MintLayerNorm(nn.Cell):
    """Ascend's newer operator, forward and backward, which compiles nothing at run time."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return mint.nn.functional.layer_norm(x, gamma.shape, gamma, beta, self.epsilon)


class RowNorm(nn.Cell):
    """Rows (n, dim) -> (normalised rows, means (n, 1), variances (n, 1)); only the first one has a gradient.

    LayerNormGrad runs on one CPU core; here the sums over rows and columns, and what goes along them, are products.
    With r = 1 / sqrt(variance + epsilon), u = gamma * dy and hat = (x - mean) * r, the gradient

        dx = r * (u - mean(u) - hat * mean(u * hat)),  dgamma = sum(dy * hat),  dbeta = sum(dy)

    is written in dy * x, never in hat, so that the passes over memory are few: dx = u * r + x * slope + shift. It is
    taken in float32: cubes of r are beyond float16.
    """

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.normalise = ops.LayerNorm(-1, -1, epsilon)
        self.product, self.along_rows = ops.MatMul(), ops.MatMul(transpose_b=True)
        self.along_columns = ops.MatMul(transpose_a=True)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.normalise(x, gamma, beta)

    def bprop(self, x: Tensor, gamma: Tensor, beta: Tensor, out: tuple, dout: tuple) -> tuple[Tensor, Tensor, Tensor]:
        dtype, dim = x.dtype, x.shape[1]
        x, dy, mean = x.astype(ms.float32), dout[0].astype(ms.float32), out[1].astype(ms.float32)
        variance = ops.depend(out[2].astype(ms.float32), dy)  # nothing is computed before dy is there
        gain, ones, dy_x = ops.reshape(gamma.astype(ms.float32), (1, dim)), ops.ones((1, dim), ms.float32), dy * x
        r = ops.rsqrt(variance + self.epsilon)
        sum_u, sum_ux = self.along_rows(dy, gain), self.along_rows(dy_x, gain)
        slope = r * r * r * (mean * sum_u - sum_ux) / dim
        shift = -(mean * slope + r * sum_u / dim)
        dx = ops.addn([dy * self.product(r, gain), x * self.product(slope, ones), self.product(shift, ones)])
        sums = self.along_columns(ops.concat((r * mean, ops.ones_like(r)), 1), dy)
        dgamma = self.along_columns(r, dy_x) - sums[:1]
        return dx.astype(dtype), ops.reshape(dgamma, (dim,)).astype(gamma.dtype), sums[1].astype(gamma.dtype)


class ProductLayerNorm(nn.Cell):
    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.rows = RowNorm(epsilon)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return ops.reshape(self.rows(ops.reshape(x, (-1, x.shape[-1])), gamma, beta)[0], x.shape)


class FusedLayerNorm(nn.Cell):
    """One operator forward and one backward, for float32."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.fused, self.epsilon = operators.layer_norm(), Tensor([epsilon], ms.float32)
        self.plain = ProductLayerNorm(epsilon)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        if x.dtype != ms.float32:
            return self.plain(x, gamma, beta)
        rows = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(self.fused(rows, gamma, beta, self.epsilon), x.shape)


def choose(epsilon: float) -> nn.Cell:
    if operators.available():
        return FusedLayerNorm(epsilon)
    return {"CPU": ProductLayerNorm, "GPU": NativeLayerNorm, "Ascend": MintLayerNorm}[device.target()](epsilon)
