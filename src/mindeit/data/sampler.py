"""The order of images in an epoch, for any number of ranks."""

from __future__ import annotations

import numpy as np

from mindeit.data.streams import generator

_ROUNDING = 256  # upstream cuts an epoch to a multiple of this


def repeated_indices(
    n: int, repeats: int, ranks: int, rank: int, permutation: np.ndarray, *, rounding: int = _ROUNDING
) -> np.ndarray:
    """Image numbers of one rank (`samplers.py: RASampler` of DeiT).

    Position p = rank + i*ranks holds permutation[(p mod n*repeats) // repeats], i < (n cut to a multiple of
    ``rounding``) // ranks: the repeats of an image are neighbours, so they land on different ranks.
    """
    length = n // rounding * rounding // ranks
    return indices_at(rank + np.arange(length, dtype=np.int64) * ranks, n, repeats, permutation)


def indices_at(positions: np.ndarray, n: int, repeats: int, permutation: np.ndarray) -> np.ndarray:
    return permutation[positions % (n * repeats) // repeats]


def samples_per_rank(n: int, repeats: int, ranks: int) -> int:
    """Upstream's rounding with repeated augmentation; every image without it, and in sets smaller than 256."""
    rounding = _ROUNDING if repeats > 1 and n >= _ROUNDING else 1
    return n // rounding * rounding // ranks


class EpochOrder:
    """The batches of one epoch on one rank. len() is their number, at least one however small the set."""

    def __init__(
        self,
        n: int,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        repeats: int = 1,
        rank: int = 0,
        ranks: int = 1,
        drop_last: bool = True,
    ) -> None:
        self._n, self._batch_size, self._repeats, self._rank, self._ranks = n, batch_size, max(1, repeats), rank, ranks
        self._samples = samples_per_rank(n, repeats, ranks)
        if self._samples < batch_size and drop_last or not self._samples:
            self._samples = batch_size  # a set smaller than one batch begins again from its first position
        self._batches = self._samples // batch_size if drop_last else -(-self._samples // batch_size)
        self._permutation = generator(seed, epoch, "order", 0).permutation(n)

    def __len__(self) -> int:
        return self._batches

    def positions(self, batch: int) -> np.ndarray:
        """Where in the epoch, counted over all ranks, the samples of a batch stand."""
        first = batch * self._batch_size
        inside = np.arange(first, min(first + self._batch_size, self._samples), dtype=np.int64)
        return self._rank + inside * self._ranks

    def images(self, batch: int) -> np.ndarray:
        return indices_at(self.positions(batch), self._n, self._repeats, self._permutation)


def batches_per_epoch(n: int, batch_size: int, *, repeats: int = 1, ranks: int = 1, drop_last: bool = True) -> int:
    """Steps of an epoch on each rank."""
    samples = samples_per_rank(n, repeats, ranks)
    return max(1, samples // batch_size if drop_last else -(-samples // batch_size))


def pick(rng: np.random.Generator, count: int) -> int:
    """0..count-1, much faster than `Generator.integers` for a single number."""
    return int(rng.random() * count)
