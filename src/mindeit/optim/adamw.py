"""AdamW (https://arxiv.org/abs/1711.05101), step by step that of PyTorch."""
from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor, ops

from mindeit.optim.base import Optimizer, bias_correction, single
from mindeit.optim.groups import Trained


class AdamW(Optimizer):
    """One fused kernel a parameter. The kernel corrects no bias, so the correction goes into its scalars."""

    options = ("betas", "eps")

    def __init__(
        self, trained: Sequence[Trained], betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(trained, "adamw", ("exp_avg", "exp_avg_sq"))
        self.beta1, self.beta2, self.eps = single(betas[0]), single(betas[1]), eps
        self.fused = ops.AdamWeightDecay()

    def construct(self, grads: tuple[Tensor, ...], lr: Tensor, step: Tensor) -> bool:
        root = ops.sqrt(bias_correction(self.beta2, step))
        gain = root / bias_correction(self.beta1, step)
        for decay, lr_scale, members in self.groups:
            rate = lr * lr_scale * gain
            weight_decay = decay / gain if decay else 0.0  # the kernel multiplies it by the rate
            for i in members:
                self.fused(self.parameters[i], self.exp_avg[i], self.exp_avg_sq[i], rate, self.beta1, self.beta2,
                           self.eps * root, weight_decay, grads[i])
        return True
