"""AdamW (https://arxiv.org/abs/1711.05101), step by step that of PyTorch."""

from __future__ import annotations

from mindspore import Tensor, ops

from mindeit.optim.base import Optimizer, bias_correction, kept, single
from mindeit.optim.flat import FlatParameters


class AdamW(Optimizer):
    """One fused kernel a buffer. The kernel corrects no bias, so the correction goes into its scalars."""

    options = ("betas", "eps")

    def __init__(self, flat: FlatParameters, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(flat, "adamw", ("exp_avg", "exp_avg_sq"))
        self.beta1, self.beta2, self.eps = single(betas[0]), single(betas[1]), eps
        self.fused = ops.AdamWeightDecay()

    def update(self, grads: tuple[Tensor, ...], rates: tuple[Tensor, ...], step: Tensor, moving: Tensor) -> None:
        root = ops.sqrt(bias_correction(self.beta2, step))
        gain = root / bias_correction(self.beta1, step)
        beta1, beta2 = kept(moving, self.beta1), kept(moving, self.beta2)
        for i, decay in enumerate(self.decays):
            weight_decay = decay / gain if decay else 0.0  # the kernel multiplies it by the rate
            self.fused(
                self.weights[i],
                self.exp_avg[i],
                self.exp_avg_sq[i],
                rates[i] * gain,
                beta1,
                beta2,
                self.eps * root,
                weight_decay,
                grads[i],
            )
