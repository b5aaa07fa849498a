"""One step of training, as cells: loss, gradients, their mean over the ranks, clipping, update, moving average.

The objective decides what the loss is and the optimizer what an update is; nothing here knows which ones run. No part
of a step branches on a value of the device, and the host reads nothing in between: what it wants to know comes back as
one small tensor, which it may read while the next step runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindeit.kernels.common_norm import CommonNorm
from mindeit.layers.drop_path import DropPathTable
from mindeit.optim.flat import FlatParameters
from mindeit.runtime.graph import compiled, to_device
from mindeit.runtime.reduce import SumOverRanks
from mindeit.training.average import Average
from mindeit.training.loss_scale import StepState


@dataclass(frozen=True)
class Clip:
    """``mode`` ``norm``: scaled down to the common norm ``value``; ``value``: cut to +-``value`` one by one."""

    mode: str = "none"
    value: float = 1.0


class Gradients(nn.Cell):
    """(images, targets, draws) -> (loss, gradients times the loss scale, a tensor per buffer of ``flat``)."""

    def __init__(
        self, objective: nn.Cell, flat: FlatParameters, drop_paths: DropPathTable | None, state: StepState
    ) -> None:
        super().__init__(auto_prefix=False)
        self.objective, self.flat, self.drop_paths, self.state = objective, flat, drop_paths, state
        self.differentiate = ops.value_and_grad(self.scaled_loss, None, flat.parameters)

    def scaled_loss(self, images: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
        return self.objective(images, targets) * scale

    def construct(self, images: Tensor, targets: Tensor, draws: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        if self.drop_paths is not None:
            self.drop_paths(draws)
        scale = self.state.values[2]
        loss, gradients = self.differentiate(images, targets, scale)
        return loss / scale, self.flat.join(gradients)


class Update(nn.Cell):
    """(loss, stop, gradients times the loss scale, lr) -> the step's `Report`, as a tensor.

    ``check_finite``: gradients of half precision may overflow; then nothing moves and the loss scale shrinks.
    """

    def __init__(
        self,
        flat: FlatParameters,
        optimizer: nn.Cell,
        average: Average | None,
        state: StepState,
        *,
        clip: Clip,
        ranks: int,
        check_finite: bool,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.flat, self.optimizer, self.average, self.state = flat, optimizer, average, state
        self.clip, self.ranks, self.check_finite = clip, ranks, check_finite
        self.over_ranks = SumOverRanks(ranks)
        self.norm = CommonNorm([group.size for group in flat.groups])

    def construct(self, loss: Tensor, stop: Tensor, gradients: tuple[Tensor, ...], lr: Tensor) -> Tensor:
        report = ops.stack((loss * (1 / self.ranks) if self.ranks > 1 else loss, stop))
        sums = self.over_ranks((*gradients, report))
        report, gradients = sums[-1], sums[:-1]
        step, finite = self.state.values[0] + 1, Tensor(True)
        if self.check_finite:
            finite = ops.isfinite(self.norm(gradients))
        self.optimizer(self.means(gradients, finite), lr, step, finite)
        self.flat()
        if self.average is not None:
            self.average(finite, step)
        return ops.concat((report, ops.reshape(finite.astype(ms.float32), (1,)), self.state(finite)))

    def means(self, gradients: tuple[Tensor, ...], finite: Tensor) -> tuple[Tensor, ...]:
        """Over the ranks, without the loss scale, clipped; zeros where something is not finite."""
        if self.check_finite or self.ranks > 1 or self.clip.mode == "norm":
            factor = self.factor(gradients, finite)
            scaled: tuple[Tensor, ...] = ()
            for gradient in gradients:
                scaled += (gradient * factor,)
            gradients = scaled
        if self.check_finite:
            cleared: tuple[Tensor, ...] = ()
            for gradient in gradients:
                cleared += (ops.masked_fill(gradient, ops.logical_not(ops.isfinite(gradient)), 0.0),)
            gradients = cleared
        if self.clip.mode == "value":
            clipped: tuple[Tensor, ...] = ()
            for gradient in gradients:
                clipped += (ops.clamp(gradient, -self.clip.value, self.clip.value),)
            gradients = clipped
        return gradients

    def factor(self, gradients: tuple[Tensor, ...], finite: Tensor) -> Tensor:
        """What gradients are multiplied by; 0 where something is not finite."""
        factor = ops.reciprocal(self.state.values[2])
        if self.ranks > 1:
            factor = factor * (1 / self.ranks)
        if self.clip.mode == "norm":
            factor = factor * ops.minimum(self.clip.value / (self.norm(gradients) * factor + 1e-6), 1.0)
        if self.check_finite:
            factor = ops.select(finite, factor, Tensor(0.0, ms.float32))
        return factor


class WholeStep(nn.Cell):
    """A batch, an update: (images, targets, draws, (lr, stop)) -> report."""

    def __init__(self, gradients: Gradients, update: Update) -> None:
        super().__init__(auto_prefix=False)
        self.gradients, self.update = gradients, update

    def construct(self, images: Tensor, targets: Tensor, draws: Tensor, settings: Tensor) -> Tensor:
        loss, gradients = self.gradients(images, targets, draws)
        return self.update(loss, settings[1], gradients, settings[0])


class Accumulate(nn.Cell):
    """One of several batches before an update: adds its share of loss and gradients to ``sums``; ``fresh`` clears them.

    (images, targets, draws, fresh) -> True.
    """

    def __init__(self, gradients: Gradients, batches: int) -> None:
        super().__init__(auto_prefix=False)
        self.gradients, self.share = gradients, 1 / batches
        loss = Parameter(Tensor(np.zeros(1, np.float32)), name="loss_sum", requires_grad=False)
        self.sums = ms.ParameterTuple([*gradients.flat.zeros("gradient_sums"), loss])

    def construct(self, images: Tensor, targets: Tensor, draws: Tensor, fresh: Tensor) -> bool:
        loss, gradients = self.gradients(images, targets, draws)
        for total, new in zip(self.sums, (*gradients, ops.reshape(loss, (1,)))):
            ops.assign(total, ops.where(fresh, ops.zeros_like(total), total) + new * self.share)
        return True


class UpdateFromSums(nn.Cell):
    """((lr, stop),) -> report."""

    def __init__(self, accumulate: Accumulate, update: Update) -> None:
        super().__init__(auto_prefix=False)
        self.sums, self.update = accumulate.sums, update

    def construct(self, settings: Tensor) -> Tensor:
        return self.update(self.sums[-1][0], settings[1], self.sums[:-1], settings[0])


class Report(NamedTuple):
    """The result of a step: the mean loss over ranks and batches, how many ranks ask to stop, whether the update took
    place, and the `StepState` after it."""

    loss: float
    stops: float
    finite: float
    updates: float
    good_steps: float
    scale: float


class Pending:
    """A step that was started; ``read`` waits for its end. ``inputs`` are kept until then: the device may read them."""

    def __init__(self, report: Tensor, inputs: object = None) -> None:
        self._report, self._inputs = report, inputs

    def read(self) -> Report:
        report = Report(*self._report.asnumpy().tolist())
        self._inputs = None
        return report


Batch = tuple[np.ndarray, np.ndarray, np.ndarray]  # images, targets, draws


class Stepper:
    """Starts a step on ``batches`` batches; equal to one step on all of them together."""

    def __init__(self, gradients: Gradients, update: Update, batches: int = 1) -> None:
        self.batches = batches
        if batches == 1:
            self._whole = compiled(WholeStep(gradients, update), "the training step")
        else:
            accumulate = Accumulate(gradients, batches)
            self._accumulate = compiled(accumulate, "the gradients")
            self._update = compiled(UpdateFromSums(accumulate, update), "the update")

    def __call__(self, batches: Sequence[Batch], lr: float, stop: bool = False) -> Pending:
        settings = np.array([lr, stop], np.float32)
        if self.batches == 1:
            report = self._whole(*map(to_device, (*batches[0], settings)))
        else:
            for number, batch in enumerate(batches):
                self._accumulate(*map(to_device, batch), to_device(np.array(number == 0)))
            report = self._update(to_device(settings))
        return Pending(report, (batches, settings))
