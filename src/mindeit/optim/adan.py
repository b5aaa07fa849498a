"""Adan (https://arxiv.org/abs/2208.06677, algorithm 1), its moments corrected for their start at zero.

The betas are the shares that stay, as everywhere here; the paper writes the shares that are replaced.
"""
from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor, ops

from mindeit.optim.base import Optimizer, bias_correction, single
from mindeit.optim.groups import Trained


class Adan(Optimizer):
    """Adam that also follows the change of the gradient; in the first step there is none.

    Two averages move by the momentum kernel at rate 0 (on CPU ops.Lerp takes ten times as long). AdamW's kernel does
    the rest: with a first beta of 1 it takes the numerator as given.
    """

    options = ("betas", "eps")
    beta_count = 3

    def __init__(
        self, trained: Sequence[Trained], betas: tuple[float, float, float] = (0.98, 0.92, 0.99), eps: float = 1e-8
    ) -> None:
        super().__init__(trained, "adan", ("exp_avg", "exp_avg_diff", "exp_avg_sq", "last_grad"))
        self.beta1, self.beta2, self.beta3, self.eps = single(betas[0]), single(betas[1]), single(betas[2]), eps
        self.average, self.fused, self.assign = ops.ApplyMomentum(), ops.AdamWeightDecay(), ops.Assign()
        self.add, self.sub, self.mul = ops.Add(), ops.Sub(), ops.Mul()

    def construct(self, grads: tuple[Tensor, ...], lr: Tensor, step: Tensor) -> bool:
        begun = (step > 1).astype(step.dtype)
        ahead, replaced = self.beta2 * begun, (1 - self.beta2) * begun
        mean_correction, root = bias_correction(self.beta1, step), ops.sqrt(bias_correction(self.beta3, step))
        balance = self.beta2 * mean_correction / bias_correction(self.beta2, step)
        for decay, lr_scale, members in self.groups:
            shrink = 1 + lr * lr_scale * decay  # the weights are divided by it
            rate = lr * lr_scale * root / mean_correction / shrink
            weight_decay = decay * mean_correction / root if decay else 0.0
            for i in members:
                weight, mean, mean_change, grad = self.parameters[i], self.exp_avg[i], self.exp_avg_diff[i], grads[i]
                change = self.sub(grad, self.last_grad[i])
                self.average(weight, mean, 0.0, self.mul(grad, 1 - self.beta1), self.beta1)
                self.average(weight, mean_change, 0.0, self.mul(change, replaced), self.beta2)
                numerator = self.add(mean, self.mul(mean_change, balance))
                self.fused(weight, numerator, self.exp_avg_sq[i], rate, 1.0, self.beta3, self.eps * root,
                           weight_decay, self.add(grad, self.mul(change, ahead)))
                self.assign(self.last_grad[i], grad)
        return True
