"""The multiply-adds of a layer."""

from __future__ import annotations

from math import prod

from mindspore import Tensor


class Counted:
    """A layer that multiplies: each element of its output is a sum of ``fan_in`` products, unless it says otherwise.

    Multiply-adds for one image are what the papers call FLOPs. As in the published figures, the two products of
    attention count, and five operations an element of a layer norm; activations, softmax and sums do not.
    """

    fan_in: int

    def multiply_adds(self, inputs: tuple[Tensor, ...], out: tuple[int, ...]) -> int:
        """Given its inputs and the shape of its output."""
        return prod(out) * self.fan_in
