"""SGD with Nesterov's momentum, as PyTorch writes it: the decay is part of the gradient."""
from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor, ops

from mindeit.optim.base import Optimizer
from mindeit.optim.groups import Trained


class SGD(Optimizer):
    """The step is ``grad + momentum * buffer``: the momentum kernel takes the second part off, one more the first.

    Its own ``use_nesterov`` changes nothing on CPU.
    """

    options = ("momentum",)

    def __init__(self, trained: Sequence[Trained], momentum: float = 0.9) -> None:
        super().__init__(trained, "sgd", ("momentum_buffer",))
        self.momentum = momentum
        self.fused, self.assign_sub = ops.ApplyMomentum(), ops.AssignSub()
        self.add, self.mul = ops.Add(), ops.Mul()

    def construct(self, grads: tuple[Tensor, ...], lr: Tensor, step: Tensor) -> bool:
        for decay, lr_scale, members in self.groups:
            rate = lr * lr_scale
            for i in members:
                weight, grad = self.parameters[i], grads[i]
                if decay:
                    grad = self.add(grad, self.mul(weight, decay))
                self.fused(weight, self.momentum_buffer[i], rate * self.momentum, grad, self.momentum)
                self.assign_sub(weight, self.mul(grad, rate))
        return True
