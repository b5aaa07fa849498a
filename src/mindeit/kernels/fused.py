"""Cells with an operator of their own, which takes float32 alone."""

from __future__ import annotations

from mindspore import nn


class Fused(nn.Cell):
    """``halves``: it was set to half precision. Without a graph its inputs do not tell: each operator casts its own."""

    halves = False

    def add_flags_recursive(self, **flags: bool) -> Fused:
        """What `to_float` calls, here or on any cell around this one."""
        if "fp32" in flags:
            self.halves = not flags["fp32"]
        return super().add_flags_recursive(**flags)
