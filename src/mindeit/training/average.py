"""The moving average of the weights in training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from mindeit.optim.flat import FlatParameters

FEW_UPDATES = 20_000  # a run of fewer warms its average up; the published recipes, which do not, have more


class Average(nn.Cell):
    """Moving averages, decay * average + (1 - decay) * value, of ``flat``'s weights and of the ``statistics`` that a
    model keeps beside them (BatchNorm's). Each moves towards its value in place, by 1 - decay of the way.

    ``warmup``: after the n-th update at least by 9 / (n + 9) of it, so that a short run forgets its initial weights.
    """

    def __init__(
        self, flat: FlatParameters, statistics: Sequence[Parameter], decay: float, *, warmup: bool = False
    ) -> None:
        super().__init__(auto_prefix=False)
        self.decay, self.warmup, self.statistics = decay, warmup, tuple(statistics)
        self.sources = ms.ParameterTuple([*flat.weights, *statistics])
        self.averages = ms.ParameterTuple(
            [
                Parameter(Tensor(source.asnumpy()), name=f"ema.{source.name}", requires_grad=False)
                for source in self.sources
            ]
        )
        self.of_weights = self.averages[: len(flat.weights)]
        self.of_statistics = self.averages[len(flat.weights) :]

    def construct(self, moving: Tensor, update: Tensor) -> bool:
        """``update`` counts from 1. Nothing changes if ``moving`` is False."""
        share = Tensor(1 - self.decay, ms.float32)
        if self.warmup:
            share = ops.maximum(share, 9 / (update + 9))  # 1 - (1 + n) / (10 + n), n updates before this one
        share = ops.select(moving, share, Tensor(0.0, ms.float32))
        for average, source in zip(self.averages, self.sources):
            ops.assign_add(average, (source - average) * share)
        return True


def kept(decay: float, updates: int, *, warmup: bool) -> float:
    """The share of the initial weights in the average after so many updates."""
    warming = min(updates, math.ceil(9 * decay / (1 - decay))) if warmup else 0
    shares = (min(decay, update / (update + 9)) for update in range(1, warming + 1))
    return math.prod(shares) * decay ** (updates - warming)
