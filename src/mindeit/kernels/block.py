"""A transformer's block as a whole: layer norm, attention, residual, layer norm, MLP, residual."""

from __future__ import annotations

from typing import Callable, Optional

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindeit.kernels.fused import ByParts
from mindeit.kernels.native import operators

# gamma, beta, the first product's weight and bias, the second's, and the residual's gain (dim,)
Half = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Draw = Callable[[Tensor], Optional[Tensor]]


class _Differentiable(nn.Cell):
    def __init__(self, epsilon: float, bfloat16: bool) -> None:
        super().__init__()
        self.kept = operators.transformer_block_kept(bfloat16)
        self.grad = operators.transformer_block_grad(bfloat16)
        self.epsilon = Tensor([epsilon], ms.float32)

    def gradients(self, dout: Tensor, inputs: tuple[Tensor, ...], kept: tuple[Tensor, ...]) -> tuple:
        """Of x, of the weights of attention and MLP, and none of the factors."""
        grads = self.grad(dout, *inputs, *kept)
        return grads[0], grads[1:8], grads[8:15], ops.zeros_like(inputs[15]), ops.zeros_like(inputs[16])


class KeptBlock(_Differentiable):
    """(x, weights of attention, those of the MLP, factors of images for either residual) -> x, and what its gradient
    needs. Only x has a gradient."""

    def construct(self, x: Tensor, attention: Half, mlp: Half, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        return self.kept(x, *attention, *mlp, first, second, self.epsilon)

    def bprop(
        self, x: Tensor, attention: Half, mlp: Half, first: Tensor, second: Tensor, out: tuple, dout: tuple
    ) -> tuple:
        return self.gradients(dout[0], (x, *attention, *mlp, first, second, self.epsilon), out[1:])


class BareBlock(_Differentiable):
    """The same -> x. Keeps nothing, so that a gradient begins with the forward pass anew."""

    def __init__(self, epsilon: float, bfloat16: bool) -> None:
        super().__init__(epsilon, bfloat16)
        self.fused = operators.transformer_block(bfloat16)

    def construct(self, x: Tensor, attention: Half, mlp: Half, first: Tensor, second: Tensor) -> Tensor:
        return self.fused(x, *attention, *mlp, first, second, self.epsilon)

    def bprop(
        self, x: Tensor, attention: Half, mlp: Half, first: Tensor, second: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        x = ops.depend(x, dout)  # else the forward pass would come at once, and its results be kept until here
        inputs = (x, *attention, *mlp, first, second, self.epsilon)
        return self.gradients(dout, inputs, self.kept(*inputs)[1:])


class FusedBlock(nn.Cell):
    """(x, weights of attention, those of the MLP, what draws images' factors for either residual) -> x, in one operator
    and its gradient in another, for float32. ``keeps``: what the gradient needs, in training.

    In graphs alone. Operator by operator, where Python calls a cell instead of reading what it constructs, the block's
    own parts run, with the hooks that somebody may have put there.
    """

    fuses = keeps = True

    def __init__(self, num_heads: int, epsilon: float, by_parts: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.num_heads, self.epsilon, self.by_parts = num_heads, epsilon, by_parts
        self.kept, self.bare = KeptBlock(epsilon, False), BareBlock(epsilon, False)

    def multiply_in_bfloat16(self) -> None:
        self.kept, self.bare = KeptBlock(self.epsilon, True), BareBlock(self.epsilon, True)

    def __call__(self, x: Tensor, attention: Half, mlp: Half, draw_first: Draw, draw_second: Draw) -> Tensor:
        return self.by_parts(x)

    def construct(self, x: Tensor, attention: Half, mlp: Half, draw_first: Draw, draw_second: Draw) -> Tensor:
        gamma, beta, qkv, bias, proj, proj_bias, gain = attention
        heads = ops.reshape(bias, (3, self.num_heads, x.shape[2] // self.num_heads))
        attention, ones = (gamma, beta, qkv, heads, proj, proj_bias, gain), ops.ones((x.shape[0],), ms.float32)
        first, second = draw_first(x), draw_second(x)
        first, second = ones if first is None else first, ones if second is None else second
        if self.training and self.keeps:
            return self.kept(x, attention, mlp, first, second)[0]
        return self.bare(x, attention, mlp, first, second)


def choose(num_heads: int, epsilon: float, by_parts: Callable[[Tensor], Tensor]) -> nn.Cell:
    """``by_parts``: the block without this."""
    return FusedBlock(num_heads, epsilon, by_parts) if operators.multiplies() else ByParts()
