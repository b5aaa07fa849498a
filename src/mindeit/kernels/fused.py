"""Cells with an operator of their own, which takes float32 alone, and what stands in for those of whole layers."""

from __future__ import annotations

from mindspore import nn


class ByParts(nn.Cell):
    """In the place of a kernel that takes a layer whole: has nothing to compute, for the layer's parts do."""

    fuses = False


class Fused(nn.Cell):
    """``halves``: it was set to half precision. Without a graph its inputs do not tell: each operator casts its own."""

    halves = False

    def add_flags_recursive(self, **flags: bool) -> Fused:
        """What `to_float` calls, here or on any cell around this one."""
        if "fp32" in flags:
            self.halves = not flags["fp32"]
        return super().add_flags_recursive(**flags)
