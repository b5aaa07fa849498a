"""GELU as the official models use it: exact, x * Phi(x), not the tanh approximation (2e-4 and more away in logits)."""

from __future__ import annotations

import math

import mindspore as ms
from mindspore import Tensor, mint, nn, ops

from mindeit.kernels.float32 import Float32
from mindeit.kernels.fused import Fused
from mindeit.kernels.native import operators
from mindeit.runtime import device

SQRT_HALF = 0.5**0.5
LOG_OF_PEAK = -0.5 * math.log(2 * math.pi)  # of the normal density
PEAK = math.exp(LOG_OF_PEAK)


class NormalDistribution(Float32):
    """Phi, with the density as its own gradient: Erf's takes twice as many passes over memory, one of them a power."""

    def construct(self, x: Tensor) -> Tensor:
        return 0.5 + 0.5 * ops.erf(x * SQRT_HALF)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        x = ops.depend(x, dout)  # else CPU computes the densities during the forward pass, and holds them until here
        return (dout * ops.exp(x * x * -0.5 + LOG_OF_PEAK),)


class ErfGelu(nn.Cell):
    """Its gradient, Phi + x * density, takes Phi from the forward pass: Erf is the most expensive operator of a block.

    Taken in float32 even where the input is a half.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phi = NormalDistribution()

    def construct(self, x: Tensor) -> Tensor:
        wide = x.astype(ms.float32)
        return (wide * self.phi(wide)).astype(x.dtype)


class GeluAndPhi(nn.Cell):
    """x -> (GELU, Phi); only the first one has a gradient.

    Phi by the complement of erf keeps its small values where 0.5 + 0.5 * erf would round them away in half precision.
    """

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        phi = 0.5 * ops.erfc(x * -SQRT_HALF)
        return x * phi, phi

    def bprop(self, x: Tensor, out: tuple[Tensor, Tensor], dout: tuple[Tensor, Tensor]) -> tuple[Tensor]:
        slope = ops.addcmul(out[1], x, ops.exp(ops.square(x) * -0.5), PEAK)
        return (dout[0] * slope,)


class ErfcGelu(nn.Cell):
    """Nine kernels forward and backward, where ``ops.gelu`` and its gradient take fifteen."""

    def __init__(self) -> None:
        super().__init__()
        self.both = GeluAndPhi()

    def construct(self, x: Tensor) -> Tensor:
        return self.both(x)[0]


class NativeGelu(nn.Cell):
    """One kernel forward and one backward; exact by default."""

    def construct(self, x: Tensor) -> Tensor:
        return mint.nn.functional.gelu(x)


class FusedGelu(Fused):
    """One operator, for float32: that of a bias and GELU, without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.fused, self.plain = operators.bias_gelu(), ErfGelu()

    def construct(self, x: Tensor) -> Tensor:
        if self.halves or x.dtype != ms.float32:
            return self.plain(x)
        rows = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(self.fused(rows, ops.zeros((x.shape[-1],), ms.float32)), x.shape)


def choose() -> nn.Cell:
    """Only Ascend has a kernel for the exact GELU. CPU gains most where Erf runs once and passes over memory are few,
    a GPU where kernels are."""
    if operators.available():
        return FusedGelu()
    return {"CPU": ErfGelu, "GPU": ErfcGelu, "Ascend": NativeGelu}[device.target()]()
