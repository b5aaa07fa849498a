"""Batch norm over the batches of all ranks, as PyTorch's SyncBatchNorm."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindeit.layers.hmlp_stem import HMLPStem


def batch_norms(model: nn.Cell) -> list[nn.Cell]:
    return [cell for _, cell in model.cells_and_names() if isinstance(cell, (nn.BatchNorm1d, nn.BatchNorm2d))]


def official_norms(model: nn.Cell) -> list[nn.Cell]:
    """Those that the official code synchronises."""
    return [norm for _, cell in model.cells_and_names() if isinstance(cell, HMLPStem) for norm in batch_norms(cell)]


def over_ranks(norms: list[nn.Cell], rank: int, ranks: int) -> None:
    """Give batch norms the statistics of all ranks in training; parameters, names and evaluation stay as they are."""
    for norm in norms:
        norm.bn_train = OverRanks(norm.eps, norm.momentum, rank, ranks)


class OverRanks(nn.Cell):
    """In place of a batch norm's training kernel, with its arguments; every rank's batch has the same size.

    The ranks exchange their means and variances, each in a row of its own, which a sum over ranks puts together: exact
    where sums of squares are not. Its gradient is a sum over ranks as well. ``share``: by which the running statistics
    move to the batch's.
    """

    def __init__(self, eps: float, share: float, rank: int, ranks: int) -> None:
        super().__init__(auto_prefix=False)
        self.eps, self.share, self.ranks = eps, share, ranks
        self.own_row = Tensor(np.eye(ranks, dtype=np.float32)[:, rank : rank + 1])
        self.total = ops.AllReduce()

    def construct(
        self, x: Tensor, gamma: Tensor, beta: Tensor, running_mean: Parameter, running_variance: Parameter
    ) -> tuple[Tensor]:
        shape: tuple[int, ...] = (1, -1, 1, 1)
        axes: tuple[int, ...] = (0, 2, 3)
        count = self.ranks * x.shape[0]
        if x.ndim == 2:
            shape, axes = (1, -1), (0,)
        else:
            count = count * x.shape[2] * x.shape[3]
        channels, values = x.shape[1], x.astype(ms.float32)
        own_mean = ops.mean(values, axes)
        own_variance = ops.mean(ops.square(values - ops.reshape(own_mean, shape)), axes)
        rows = self.total(self.own_row * ops.reshape(ops.concat((own_mean, own_variance)), (1, -1)))
        means, variances = rows[:, :channels], rows[:, channels:]
        mean = ops.mean(means, 0)
        variance = ops.mean(variances + ops.square(means - mean), 0)
        self.move(running_mean, mean)
        self.move(running_variance, variance * (count / (count - 1)))
        scale = gamma * ops.rsqrt(variance + self.eps)
        y = (values - ops.reshape(mean, shape)) * ops.reshape(scale, shape) + ops.reshape(beta, shape)
        return (y.astype(x.dtype),)

    def move(self, running: Parameter, value: Tensor) -> None:
        ops.assign_add(running, (ops.stop_gradient(value) - running) * self.share)
