"""Lion (https://arxiv.org/abs/2302.06675, algorithm 2): steps of one size, in the direction of a sign."""

from __future__ import annotations

from mindspore import Tensor, ops

from mindeit.optim.base import Optimizer, added, kept
from mindeit.optim.flat import FlatParameters


class Lion(Optimizer):
    options = ("betas",)

    def __init__(self, flat: FlatParameters, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(flat, "lion", ("exp_avg",))
        self.beta1, self.beta2 = betas
        self.odds = self.beta1 / (1 - self.beta1)  # a sign does not see the common factor

    def update(self, grads: tuple[Tensor, ...], rates: tuple[Tensor, ...], step: Tensor, moving: Tensor) -> None:
        stays, joins = kept(moving, self.beta2), added(moving, 1 - self.beta2)
        for i, decay in enumerate(self.decays):
            weights, mean = self.weights[i], self.exp_avg[i]
            update = ops.sign(mean * self.odds + grads[i])
            if decay:
                update = update + weights * decay
            ops.assign_sub(weights, update * rates[i])
            ops.assign(mean, mean * stays + grads[i] * joins)
