"""The norm of several long vectors together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindeit.runtime import device

ROW = 1024  # values that one thread adds up
_SHORT = 32  # rows that are shorter cost more than filling up


class Sum(nn.Cell):
    """(n,) -> a scalar."""

    def construct(self, values: Tensor) -> Tensor:
        return values.sum()


class RowSums(nn.Cell):
    """The same in an order that never changes: rows, then their sums in rows, and so on.

    MindSpore's CPU kernel splits the sum of a long vector by the threads that are free just then, so that its last bit
    differs from run to run. The sum of a row is one thread's.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.levels = tuple(_levels(length))

    def construct(self, values: Tensor) -> Tensor:
        for columns, missing in self.levels:
            if missing:
                values = ops.concat((values, ops.zeros((missing,), ms.float32)))
            values = ops.reshape(values, (-1, columns)).sum(1)
        return ops.reshape(values, ())


def _levels(length: int) -> Iterator[tuple[int, int]]:
    """Length of a row, and how many zeros fill the last one up, until one value is left."""
    while True:
        columns = max(number for number in range(1, min(length, ROW) + 1) if length % number == 0)
        columns = columns if columns >= min(length, _SHORT) else ROW
        missing = -length % columns
        yield columns, missing
        length = (length + missing) // columns
        if length == 1:
            return


class CommonNorm(nn.Cell):
    """Vectors of these ``lengths`` -> the root of the sum of all squares, a scalar."""

    def __init__(self, lengths: Sequence[int]) -> None:
        super().__init__(auto_prefix=False)
        in_rows = device.target() == "CPU"
        self.sums = nn.CellList([RowSums(length) if in_rows else Sum() for length in lengths])

    def construct(self, vectors: tuple[Tensor, ...]) -> Tensor:
        total = self.sums[0](ops.square(vectors[0]))
        for index in range(1, len(vectors)):
            total += self.sums[index](ops.square(vectors[index]))
        return ops.sqrt(total)
