"""One step of training, as cells: loss, gradients, their mean over the ranks, clipping, update, moving average.

The objective decides what the loss is and the optimizer what an update is; nothing here knows which ones run.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindeit.optim.groups import Trained
from mindeit.runtime.reduce import MeanOverRanks


@dataclass(frozen=True)
class Clip:
    """``mode`` ``norm``: scaled down to the common norm ``value``; ``value``: cut to +-``value`` one by one."""

    mode: str = "none"
    value: float = 1.0


class Gradients(nn.Cell):
    """(images, targets, draws, scale) -> (loss, gradients times scale). ``draws`` fills the drop paths' table."""

    def __init__(self, objective: nn.Cell, trained: Sequence[Trained], draws: Optional[Parameter]) -> None:
        super().__init__(auto_prefix=False)
        self.objective, self.draws = objective, draws
        weights = ms.ParameterTuple([one.parameter for one in trained])
        self.differentiate = ops.value_and_grad(self.scaled_loss, None, weights)

    def scaled_loss(self, images: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
        return self.objective(images, targets) * scale

    def construct(self, images: Tensor, targets: Tensor, draws: Tensor, scale: Tensor) -> tuple[Tensor, tuple]:
        if self.draws is not None:
            ops.assign(self.draws, draws)
        loss, gradients = self.differentiate(images, targets, scale)
        return loss / scale, gradients


class Average(nn.Cell):
    """Moving average of a model's parameters: decay * average + (1 - decay) * parameter."""

    def __init__(self, parameters: Sequence[Parameter], decay: float) -> None:
        super().__init__(auto_prefix=False)
        self.sources = ms.ParameterTuple(parameters)
        self.averages = ms.ParameterTuple(
            [Parameter(one.asnumpy(), name=f"ema.{one.name}", requires_grad=False) for one in parameters]
        )
        self.decay = decay

    def construct(self) -> bool:
        for average, source in zip(self.averages, self.sources):
            ops.assign(average, average * self.decay + source * (1 - self.decay))
        return True


class Update(nn.Cell):
    """(gradients times scale, lr, step, scale) -> whether the gradients were finite; if not, nothing changes."""

    def __init__(
        self, optimizer: nn.Cell, average: Optional[Average], *, clip: Clip, ranks: int, check_finite: bool
    ) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer, self.average = optimizer, average
        self.clip, self.check_finite = clip, check_finite
        self.over_ranks = MeanOverRanks(ranks)

    def construct(self, gradients: tuple, lr: Tensor, step: Tensor, scale: Tensor) -> Tensor:
        gradients = self.over_ranks(gradients)
        if self.check_finite:
            gradients = [one / scale for one in gradients]
            finite = ops.isfinite(norm(gradients))
            if finite:
                self.apply(gradients, lr, step)
            return finite
        self.apply(gradients, lr, step)
        return Tensor(True)

    def apply(self, gradients: Sequence[Tensor], lr: Tensor, step: Tensor) -> None:
        if self.clip.mode == "norm":
            factor = ops.minimum(self.clip.value / (norm(gradients) + 1e-6), 1.0)
            gradients = [one * factor for one in gradients]
        elif self.clip.mode == "value":
            gradients = [ops.clamp(one, -self.clip.value, self.clip.value) for one in gradients]
        self.optimizer(gradients, lr, step)
        if self.average is not None:
            self.average()


class WholeStep(nn.Cell):
    """A batch, an update: (images, targets, draws, lr, step, scale) -> (loss, finite)."""

    def __init__(self, gradients: Gradients, update: Update) -> None:
        super().__init__(auto_prefix=False)
        self.gradients, self.update = gradients, update

    def construct(
        self, images: Tensor, targets: Tensor, draws: Tensor, lr: Tensor, step: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        loss, gradients = self.gradients(images, targets, draws, scale)
        return loss, self.update(gradients, lr, step, scale)


class Gather(nn.Cell):
    """One of several batches before an update: its gradients' share goes into ``sums``, which ``fresh`` empties."""

    def __init__(self, gradients: Gradients, trained: Sequence[Trained], batches: int) -> None:
        super().__init__(auto_prefix=False)
        self.gradients, self.share = gradients, 1 / batches
        self.sums = ms.ParameterTuple([_zeros_like(one.parameter) for one in trained])

    def construct(self, images: Tensor, targets: Tensor, draws: Tensor, scale: Tensor, fresh: Tensor) -> Tensor:
        loss, gradients = self.gradients(images, targets, draws, scale)
        for total, gradient in zip(self.sums, gradients):
            before = ops.select(fresh, ops.zeros_like(total), total)
            ops.assign(total, before + gradient * self.share)
        return loss


def _zeros_like(parameter: Parameter) -> Parameter:
    return Parameter(np.zeros(parameter.shape, np.float32), name=f"sum.{parameter.name}", requires_grad=False)


class UpdateFromSums(nn.Cell):
    """(lr, step, scale) -> finite."""

    def __init__(self, gather: Gather, update: Update) -> None:
        super().__init__(auto_prefix=False)
        self.sums, self.update = gather.sums, update

    def construct(self, lr: Tensor, step: Tensor, scale: Tensor) -> Tensor:
        return self.update(self.sums, lr, step, scale)


Batch = tuple[np.ndarray, np.ndarray, np.ndarray]  # images, targets, draws


class Stepper:
    """Runs a step on ``batches`` batches at a time; equal to one step on all of them together."""

    def __init__(self, gradients: Gradients, update: Update, trained: Sequence[Trained], batches: int = 1) -> None:
        self.batches = batches
        if batches == 1:
            self._whole = WholeStep(gradients, update)
        else:
            self._gather = Gather(gradients, trained, batches)
            self._update = UpdateFromSums(self._gather, update)

    def __call__(self, batches: Sequence[Batch], lr: float, step: int, scale: float = 1.0) -> tuple[float, bool]:
        """(mean loss, whether the update took place). ``step`` counts from 1."""
        lr, step, scale = (Tensor(value, ms.float32) for value in (lr, step, scale))
        if self.batches == 1:
            loss, finite = self._whole(*map(Tensor, batches[0]), lr, step, scale)
            return float(loss.asnumpy()), bool(finite.asnumpy())
        losses = [
            self._gather(*map(Tensor, batch), scale, Tensor(number == 0)) for number, batch in enumerate(batches)
        ]
        finite = self._update(lr, step, scale)
        return sum(float(loss.asnumpy()) for loss in losses) / len(losses), bool(finite.asnumpy())


def norm(gradients: Sequence[Tensor]) -> Tensor:
    """Of all of them together."""
    total = 0.0
    for one in gradients:
        total += ops.square(one).sum()
    return ops.sqrt(total)
