"""LAMB (https://arxiv.org/abs/1904.00962) in NVIDIA's variant, FusedLAMB of apex, which DeiT III was trained with."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, ops

from mindeit.optim.base import Optimizer, bias_correction, single
from mindeit.optim.groups import Trained

MAX_GRAD_NORM = 1.0  # of all gradients together; the variant always clips


class Lamb(Optimizer):
    """Adam whose step is as long as the weights, times the learning rate, wherever weights decay; Adam elsewhere.

    The fused kernel of Adam does what it can, as graphs compile kernel by kernel: all of the step without decay; with
    it, at rate 0, the moments.
    """

    options = ("betas", "eps")

    def __init__(
        self, trained: Sequence[Trained], betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(trained, "lamb", ("exp_avg", "exp_avg_sq"))
        self.beta1, self.beta2, self.eps = single(betas[0]), single(betas[1]), eps
        self.decayed = tuple(i for decay, _, members in self.groups if decay for i in members)
        self.decayed_scales = Tensor(np.array([trained[i].lr_scale for i in self.decayed], np.float32))
        self.vectors = tuple(i for i, one in enumerate(trained) if len(one.parameter.shape) == 1)
        self.arrays = tuple(i for i in range(len(trained)) if i not in self.vectors)
        self.fused, self.assign_sub = ops.AdamWeightDecay(), ops.AssignSub()
        self.add, self.mul, self.div, self.sqrt = ops.Add(), ops.Mul(), ops.Div(), ops.Sqrt()
        self.square, self.sum = ops.Square(), ops.ReduceSum()  # ops.L2Loss is off by 5e-4 at a million values on CPU

    def construct(self, grads: tuple[Tensor, ...], lr: Tensor, step: Tensor) -> bool:
        clip = self.clip_factor(grads)
        root = ops.sqrt(bias_correction(self.beta2, step))
        gain, eps = root / bias_correction(self.beta1, step), self.eps * root
        updates = ()
        for decay, lr_scale, members in self.groups:
            rate, share = 0.0 if decay else lr * lr_scale * gain, decay / gain
            for i in members:
                weight, mean, mean_sq = self.parameters[i], self.exp_avg[i], self.exp_avg_sq[i]
                grad = self.mul(grads[i], clip)
                self.fused(weight, mean, mean_sq, rate, self.beta1, self.beta2, eps, 0.0, grad)
                if decay:
                    adam = self.div(mean, self.add(self.sqrt(mean_sq), eps))
                    updates += (self.add(adam, self.mul(weight, share)),)
        if updates:
            self.move(updates, lr, gain)
        return True

    def move(self, updates: tuple[Tensor, ...], lr: Tensor, gain: Tensor) -> None:
        """Take ``updates``, each stretched to its weight's norm, off the weights that decay.

        They lack a factor ``gain``, which the stretching would undo; where a norm is 0, they count as they are.
        """
        above, below = (), ()
        for k, i in enumerate(self.decayed):
            above += (self.sum(self.square(self.parameters[i])),)
            below += (self.sum(self.square(updates[k])),)
        above, below = ops.stack(above), ops.stack(below)
        trust = ops.where(ops.minimum(above, below) > 0, ops.sqrt(above / below), gain)
        sizes = ops.unstack(lr * self.decayed_scales * trust)
        for k, i in enumerate(self.decayed):
            self.assign_sub(self.parameters[i], self.mul(updates[k], sizes[k]))

    def clip_factor(self, grads: tuple[Tensor, ...]) -> Tensor:
        """What brings the common norm of all gradients down to ``MAX_GRAD_NORM``, or 1."""
        squares, vectors = (), ()
        for i in self.arrays:
            squares += (self.sum(self.square(grads[i])),)
        for i in self.vectors:
            vectors += (grads[i],)
        if vectors:
            squares += (self.sum(self.square(ops.concat(vectors))),)
        return MAX_GRAD_NORM / ops.maximum(ops.sqrt(ops.addn(squares)), MAX_GRAD_NORM)
