from __future__ import annotations

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
        self.factors: Parameter | None = None
        self.row = 0

    def construct(self, x: Tensor) -> Tensor:
        factors = self.draw(x)
        if factors is None:
            return x
        return self.gain(x, ops.reshape(factors, (x.shape[0],) + (1,) * (x.ndim - 1)))

    def draw(self, x: Tensor) -> Tensor | None:
        """A factor for each sample (batch,): 0 where it is dropped; None where nothing is."""
        if self.dropout is None or not self.training:
            return None
        if self.factors is None:
            return self.dropout(ops.ones((x.shape[0],), x.dtype))
        # Written alike in every drop path, this is computed once: compilers merge equal expressions.
        factors = ops.split(self.factors.astype(x.dtype), 1, axis=0)
        return ops.reshape(factors[self.row], (x.shape[0],))


class DropPathTable(nn.Cell):
    """Uniform draws (drop paths, batch) -> the factors that these drop paths read, computed once for all of them.

    The caller makes the draws, so that they depend on seed, epoch and position alone: a device's generator could not
    resume where it stopped, nor give several ranks the draws of one process.
    """

    def __init__(self, paths: list[DropPath], batch_size: int) -> None:
        super().__init__(auto_prefix=False)
        self.shape = (len(paths), batch_size)
        probabilities = np.array([[path.probability] for path in paths])
        self.probabilities = Tensor(probabilities.astype(np.float32))
        self.scales = Tensor((1 / (1 - probabilities)).astype(np.float32))
        self.factors = Parameter(np.zeros(self.shape, np.float32), name="drop_path_factors", requires_grad=False)
        for row, path in enumerate(paths):
            path.factors, path.row = self.factors, row

    def construct(self, draws: Tensor) -> bool:
        ops.assign(self.factors, (draws >= self.probabilities).astype(draws.dtype) * self.scales)
        return True


def share_draws(model: nn.Cell, batch_size: int) -> DropPathTable | None:
    """A table that every drop path of ``model`` reads from now on; None without any."""
    paths = [cell for _, cell in model.cells_and_names() if isinstance(cell, DropPath) and cell.probability > 0]
    return DropPathTable(paths, batch_size) if paths else None
