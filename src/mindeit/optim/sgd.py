"""SGD with momentum, Nesterov's or plain, as PyTorch writes it: the decay is part of the gradient."""

from __future__ import annotations

from mindspore import Tensor, ops

from mindeit.optim.base import Optimizer, added, kept
from mindeit.optim.flat import FlatParameters


class SGD(Optimizer):
    """The step is ``grad + momentum * buffer``, without Nesterov ``buffer``.

    ops.ApplyMomentum would do part of it, but in half precision GPU's fusion of it ends in a cyclic graph.
    """

    options = ("momentum", "nesterov")

    def __init__(self, flat: FlatParameters, momentum: float = 0.9, nesterov: bool = True) -> None:
        super().__init__(flat, "sgd", ("momentum_buffer",))
        self.momentum, self.nesterov = momentum, nesterov

    def update(self, grads: tuple[Tensor, ...], rates: tuple[Tensor, ...], step: Tensor, moving: Tensor) -> None:
        stays, joins = kept(moving, self.momentum), added(moving, 1.0)
        for i, decay in enumerate(self.decays):
            weights, grad = self.weights[i], grads[i]
            if decay:
                grad = grad + weights * decay
            momentum = self.momentum_buffer[i] * stays + grad * joins
            ops.assign(self.momentum_buffer[i], momentum)
            if self.nesterov:
                ops.assign_sub(weights, (grad + momentum * self.momentum) * rates[i])
            else:
                ops.assign_sub(weights, momentum * rates[i])
