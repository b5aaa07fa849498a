"""GELU as the official models use it: exact, x * Phi(x), not the tanh approximation (2e-4 and more away in logits)."""
from __future__ import annotations

from typing import Callable

from mindspore import Tensor, ops

from mindeit.runtime import device

SQRT_HALF = 0.5**0.5


def gelu_from_erf(x: Tensor) -> Tensor:
    return x * (0.5 + 0.5 * ops.erf(x * SQRT_HALF))


def gelu_native(x: Tensor) -> Tensor:
    return ops.gelu(x, approximate="none")


def choose() -> Callable[[Tensor], Tensor]:
    """CPU has no kernel of its own for the exact GELU; the erf form saves it a pass over memory."""
    return gelu_from_erf if device.target() == "CPU" else gelu_native
