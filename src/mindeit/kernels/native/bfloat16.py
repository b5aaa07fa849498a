"""Products in bfloat16 for CPU, by AMX or by the oneDNN that comes with MindSpore. Does not load MindSpore.

They are refused where the CPU does not multiply bfloat16 itself: oneDNN takes about a thousand times as long there.
"""

from __future__ import annotations

import ctypes
import functools
from itertools import chain

import numpy as np

from mindeit.errors import UserError
from mindeit.kernels.native import onednn, selftest
from mindeit.kernels.native.library import library

_WANTED = 0xE7  # bits of oneDNN's instruction sets: AVX-512 with bfloat16; AMX has them, too


def require() -> None:
    """Raise a UserError that says why there are none, or make them ready."""
    reason = unavailable()
    if reason:
        raise UserError(f"amp_level is bf16, and {reason}; allowed on this CPU: O0, O2 or O3")


def kind() -> str:
    """Which they are, where there are some."""
    amx = ctypes.CDLL(str(library().path)).uses_amx()
    return "products of linear layers and attention, by AMX" if amx else "products of linear layers"


@functools.cache
def unavailable() -> str | None:
    """Why there are none; None: they are ready."""
    path = library().path
    if path is None or not library().multiplies:
        return f"its CPU operators are {library().form}"
    try:
        supported, gemm = onednn.load().dnnl_get_effective_cpu_isa(), onednn.function("dnnl_gemm_bf16bf16f32")
    except (OSError, AttributeError) as error:
        return f"MindSpore's oneDNN has no products in bfloat16: {error}"
    if supported & _WANTED != _WANTED:
        return "this CPU has no products in bfloat16 (AVX512_BF16 or AMX)"
    operators = ctypes.CDLL(str(path))
    operators.use_bfloat16_gemm(gemm)
    draws = np.random.default_rng(0)
    of_layers = selftest.block_cases, selftest.talking_heads_cases, selftest.convolution_cases
    following = (cases(draws, prefix="bfloat16_") for cases in of_layers)
    wrong = selftest.first_wrong(operators, selftest.bfloat16_cases(draws)) or selftest.first_wrong(
        operators, chain(*following), selftest.BFLOAT16_TOLERANCE
    )
    return f"{path} computes {wrong} wrongly" if wrong else None
