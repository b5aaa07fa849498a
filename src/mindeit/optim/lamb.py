"""LAMB (https://arxiv.org/abs/1904.00962) in NVIDIA's variant, FusedLAMB of apex, which DeiT III was trained with."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from mindeit.kernels import gain
from mindeit.kernels.common_norm import CommonNorm
from mindeit.optim.base import Optimizer, bias_correction, kept, single
from mindeit.optim.flat import FlatParameters

MAX_GRAD_NORM = 1.0  # of all gradients together; the variant always clips


class Lamb(Optimizer):
    """Adam whose step is as long as the weights, times the learning rate, wherever weights decay; Adam elsewhere.

    The fused kernel of Adam does what it can: all of the step without decay; with it, at rate 0, the moments.
    """

    options = ("betas", "eps")

    def __init__(self, flat: FlatParameters, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(flat, "lamb", ("exp_avg", "exp_avg_sq"))
        self.beta1, self.beta2, self.eps = single(betas[0]), single(betas[1]), eps
        self.stacks = tuple(tuple(group.stacks) for group in flat.groups)
        self.norm = CommonNorm([group.size for group in flat.groups])
        self.fused, self.over, self.gain = ops.AdamWeightDecay(), ops.RealDiv(), gain.choose()

    def update(self, grads: tuple[Tensor, ...], rates: tuple[Tensor, ...], step: Tensor, moving: Tensor) -> None:
        clip = MAX_GRAD_NORM / ops.maximum(self.norm(grads), MAX_GRAD_NORM)
        root = ops.sqrt(bias_correction(self.beta2, step))
        correction, eps = root / bias_correction(self.beta1, step), self.eps * root
        beta1, beta2 = kept(moving, self.beta1), kept(moving, self.beta2)
        for i, decay in enumerate(self.decays):
            weights, mean, mean_sq = self.weights[i], self.exp_avg[i], self.exp_avg_sq[i]
            rate = 0.0 if decay else rates[i] * correction
            self.fused(weights, mean, mean_sq, rate, beta1, beta2, eps, 0.0, grads[i] * clip)
            if decay:
                adam = self.over(mean, ops.sqrt(mean_sq) + eps)  # a plain Div keeps indices on CPU, 16 bytes a value
                update = self.stretched(self.stacks[i], adam + weights * (decay / correction), weights, correction)
                ops.assign_sub(weights, update * rates[i])

    def stretched(self, stacks: tuple[nn.Cell, ...], update: Tensor, weights: Tensor, correction: Tensor) -> Tensor:
        """Each parameter's part of ``update`` at the length of its weights.

        ``update`` lacks the factor ``correction``, which stretching undoes; where a norm is 0, it alone is applied.
        """
        parts: tuple[Tensor, ...] = ()
        for stack in stacks:
            rows, own = stack.section(update), stack.section(weights)
            above, below = ops.square(own).sum(1, keepdims=True), ops.square(rows).sum(1, keepdims=True)
            trust = ops.where(ops.minimum(above, below) > 0, ops.sqrt(above / below), correction)
            stretched = self.gain(ops.expand_dims(rows, 1), ops.expand_dims(trust, 1))
            parts += (ops.reshape(stretched, (-1,)),)
        return ops.concat(parts)
