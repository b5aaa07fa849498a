"""Cells that stay in float32."""

from __future__ import annotations

from mindspore import nn


class Float32(nn.Cell):
    """Computes in float32, also inside a model that is set to half precision.

    On CPU each product and sum of halves takes several times as long as of float32, and keeps 16 bytes an element as
    long as the graph lives.
    """

    def add_flags_recursive(self, **flags: bool) -> Float32:
        """What `to_float` calls, here or on any cell around this one."""
        if "fp32" in flags:
            flags.update(fp16=False, fp32=True, bf16=False)
        return super().add_flags_recursive(**flags)
