"""Lion (https://arxiv.org/abs/2302.06675, algorithm 2): steps of one size, in the direction of a sign."""
from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor, ops

from mindeit.optim.base import Optimizer
from mindeit.optim.groups import Trained


class Lion(Optimizer):
    """The average moves by the momentum kernel at rate 0: on CPU ops.Lerp takes ten times as long."""

    options = ("betas",)

    def __init__(self, trained: Sequence[Trained], betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(trained, "lion", ("exp_avg",))
        self.beta1, self.beta2 = betas
        self.odds = self.beta1 / (1 - self.beta1)  # a sign does not see the common factor
        self.average, self.assign_sub = ops.ApplyMomentum(), ops.AssignSub()
        self.sign, self.mul, self.add = ops.Sign(), ops.Mul(), ops.Add()

    def construct(self, grads: tuple[Tensor, ...], lr: Tensor, step: Tensor) -> bool:
        for decay, lr_scale, members in self.groups:
            rate = lr * lr_scale
            for i in members:
                weight, mean, grad = self.parameters[i], self.exp_avg[i], grads[i]
                update = self.sign(self.add(self.mul(mean, self.odds), grad))
                if decay:
                    update = self.add(update, self.mul(weight, decay))
                self.assign_sub(weight, self.mul(update, rate))
                self.average(weight, mean, 0.0, self.mul(grad, 1 - self.beta2), self.beta2)
        return True
