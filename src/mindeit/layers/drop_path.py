from __future__ import annotations

from typing import Optional

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindeit.kernels import gain


class DropPath(nn.Cell):
    """Stochastic depth: in training, a sample's residual is dropped at random, or scaled to keep the mean.

    The draws come from the device's generator, or from a table that training fills before each step (`share_draws`).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.dropout = nn.Dropout(p=probability) if probability > 0 else None
        self.gain = gain.choose()
        self.draws: Optional[Parameter] = None
        self.thresholds: Optional[Tensor] = None
        self.shares: Optional[Tensor] = None
        self.row = 0

    def construct(self, x: Tensor) -> Tensor:
        if self.dropout is None or not self.training:
            return x
        per_sample = (x.shape[0],) + (1,) * (x.ndim - 1)
        if self.draws is None:
            return self.gain(x, self.dropout(ops.ones(per_sample, x.dtype)))
        # Written alike in every drop path, the table of gains is computed once: compilers merge equal expressions.
        kept = (self.draws >= self.thresholds).astype(x.dtype) / self.shares.astype(x.dtype)
        return self.gain(x, ops.split(kept, 1, axis=0)[self.row].reshape(per_sample))


def share_draws(model: nn.Cell, batch_size: int) -> Optional[Parameter]:
    """Make a table (drop paths, batch) of uniform draws that every drop path of ``model`` reads; None without any.

    What fills it decides what the draws depend on: a device's generator could not go on where it stopped, nor give
    several ranks what one process has.
    """
    paths = [cell for _, cell in model.cells_and_names() if isinstance(cell, DropPath) and cell.probability > 0]
    if not paths:
        return None
    draws = Parameter(np.zeros((len(paths), batch_size), np.float32), name="drop_path_draws", requires_grad=False)
    probabilities = np.array([[path.probability] for path in paths])
    thresholds, shares = Tensor(probabilities.astype(np.float32)), Tensor((1 - probabilities).astype(np.float32))
    for row, path in enumerate(paths):
        path.draws, path.thresholds, path.shares, path.row = draws, thresholds, shares, row
    return draws
