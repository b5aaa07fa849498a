"""Adan (https://arxiv.org/abs/2208.06677, algorithm 1), its moments corrected for their start at zero.

The betas are the shares that stay, as everywhere here; the paper writes the shares that are replaced.
"""

from __future__ import annotations

from mindspore import Tensor, ops

from mindeit.optim.base import Optimizer, added, bias_correction, kept, single
from mindeit.optim.flat import FlatParameters


class Adan(Optimizer):
    """Adam that also follows the change of the gradient; in the first step there is none."""

    options = ("betas", "eps")
    beta_count = 3

    def __init__(
        self, flat: FlatParameters, betas: tuple[float, float, float] = (0.98, 0.92, 0.99), eps: float = 1e-8
    ) -> None:
        super().__init__(flat, "adan", ("exp_avg", "exp_avg_diff", "exp_avg_sq", "last_grad"))
        self.beta1, self.beta2, self.beta3, self.eps = single(betas[0]), single(betas[1]), single(betas[2]), eps
        self.over = ops.RealDiv()  # a plain Div keeps indices on CPU, 16 bytes a value

    def update(self, grads: tuple[Tensor, ...], rates: tuple[Tensor, ...], step: Tensor, moving: Tensor) -> None:
        begun = (step > 1).astype(step.dtype)
        correction, root = bias_correction(self.beta1, step), ops.sqrt(bias_correction(self.beta3, step))
        balance = self.beta2 * correction / bias_correction(self.beta2, step)
        stays1, joins1 = kept(moving, self.beta1), added(moving, 1 - self.beta1)
        stays2, joins2 = kept(moving, self.beta2), added(moving, 1 - self.beta2) * begun
        stays3, joins3 = kept(moving, self.beta3), added(moving, 1 - self.beta3)
        old, new = kept(moving, 0.0), added(moving, 1.0)
        for i, decay in enumerate(self.decays):
            weights, grad, last = self.weights[i], grads[i], self.last_grad[i]
            change = grad - last
            looked_at = grad + change * (self.beta2 * begun)
            mean = self.exp_avg[i] * stays1 + grad * joins1
            mean_change = self.exp_avg_diff[i] * stays2 + change * joins2
            mean_sq = self.exp_avg_sq[i] * stays3 + ops.square(looked_at) * joins3
            rate = rates[i] * root / correction
            ahead = self.over(mean + mean_change * balance, ops.sqrt(mean_sq) + self.eps * root)
            ops.assign(weights, (weights - ahead * rate) * (1 / (1 + rates[i] * decay)))
            ops.assign(self.exp_avg[i], mean)
            ops.assign(self.exp_avg_diff[i], mean_change)
            ops.assign(self.exp_avg_sq[i], mean_sq)
            ops.assign(last, last * old + grad * new)
