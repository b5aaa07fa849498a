"""GELU as the official models use it: exact, x * Phi(x), not the tanh approximation (2e-4 and more away in logits)."""
from __future__ import annotations

import math

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindeit.kernels.float32 import Float32
from mindeit.runtime import device

SQRT_HALF = 0.5**0.5
LOG_OF_PEAK = -0.5 * math.log(2 * math.pi)  # of the normal density


class NormalDistribution(Float32):
    """Phi, with the density as its own gradient: Erf's takes twice as many passes over memory, one of them a power."""

    def construct(self, x: Tensor) -> Tensor:
        return 0.5 + 0.5 * ops.erf(x * SQRT_HALF)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        x = ops.depend(x, dout)  # else CPU computes the densities during the forward pass, and holds them until here
        return (dout * ops.exp(x * x * -0.5 + LOG_OF_PEAK),)


class ErfGelu(nn.Cell):
    """Its gradient, Phi + x * density, takes Phi from the forward pass: Erf is the dearest operator of a block.

    Taken in float32 even where the input is a half.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phi = NormalDistribution()

    def construct(self, x: Tensor) -> Tensor:
        wide = x.astype(ms.float32)
        return (wide * self.phi(wide)).astype(x.dtype)


class NativeGelu(nn.Cell):
    def construct(self, x: Tensor) -> Tensor:
        return ops.gelu(x, approximate="none")


def choose() -> nn.Cell:
    """CPU has no kernel of its own for the exact GELU; the erf form saves it a pass over memory."""
    return ErfGelu() if device.target() == "CPU" else NativeGelu()
