"""Versions, devices, and the libraries found and missing: paste it into an issue."""

from __future__ import annotations

from collections.abc import Sequence

from mindeit.config import parse
from mindeit.errors import run_script
from mindeit.kernels.native import bfloat16
from mindeit.kernels.native.library import library
from mindeit.runtime.environment import report


@run_script
def main(argv: Sequence[str]) -> None:
    parse(argv, description=__doc__, sections=())
    print(report())
    print(f"operators on CPU: {library().form}")
    print(f"amp_level bf16 on CPU: {bfloat16.unavailable() or bfloat16.kind()}")
