"""Batches for evaluation and training."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from mindeit.data.batch_memory import BatchMemory
from mindeit.data.images import Source
from mindeit.data.mixing import Mixing
from mindeit.data.prefetch import in_order
from mindeit.data.sampler import EpochOrder, generator
from mindeit.data.train_transform import TrainTransform
from mindeit.data.transforms import EvalTransform
from mindeit.errors import UserError

NO_LABEL = -1
_GIVE_UP_AFTER = 100  # bad pictures in a row


class EvaluationBatches:
    """One pass over a source: (images float32 (B, 3, S, S), labels int32 (B,)), always full batches.

    Batch b of rank r holds positions b*B*ranks + r*B ... + B-1. Positions past the end and skipped pictures are zeros
    with label -1, so over all ranks each picture counts exactly once and every rank takes the same number of steps.
    bad: numbers of the pictures that could not be read, filled while iterating; skipped: their paths.
    """

    def __init__(self, source: Source, transform: EvalTransform, batch_size: int, workers: int, rank: int, ranks: int,
                 skip_bad_images: bool, processes: bool):
        self._source, self._transform, self._batch_size = source, transform, batch_size
        self._workers, self._rank, self._ranks = workers, rank, ranks
        self._skip_bad_images, self._processes = skip_bad_images, processes
        self._memory = BatchMemory()
        self.bad: list[int] = []

    @property
    def skipped(self) -> list[str]:
        return [self._source.where(index) for index in self.bad]

    def __len__(self) -> int:
        return -(-len(self._source) // (self._batch_size * self._ranks))

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.bad = []
        work = in_order(self._batch, range(len(self)), self._workers, self._processes)
        for number, (images, labels) in enumerate(work):
            missing = self._positions(number)[labels == NO_LABEL].tolist()
            self.bad += [index for index in missing if index < len(self._source)]
            yield images, labels

    def _positions(self, number: int) -> np.ndarray:
        return (number * self._ranks + self._rank) * self._batch_size + np.arange(self._batch_size)

    def _batch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        size = self._transform.image_size
        images = self._memory.empty((self._batch_size, 3, size, size))
        labels = np.full(self._batch_size, NO_LABEL, np.int32)
        for slot, position in enumerate(self._positions(number).tolist()):
            if self._fill(images[slot], position):
                labels[slot] = self._source.labels[position]
            else:
                images[slot] = 0
        return images, labels

    def _fill(self, pixels: np.ndarray, position: int) -> bool:
        """Whether there is a picture to put into ``pixels``."""
        if position >= len(self._source):
            return False
        try:
            picture = self._source.read(position)
        except UserError:
            if not self._skip_bad_images:
                raise
            return False
        self._transform(picture, pixels)
        return True


def evaluation_batches(source: Source, transform: EvalTransform, batch_size: int, *, workers: int = 0, rank: int = 0,
                       ranks: int = 1, skip_bad_images: bool = False, processes: bool = False) -> EvaluationBatches:
    """See `EvaluationBatches`. workers: threads (or processes) that prepare batches ahead; 0 prepares them in place."""
    return EvaluationBatches(source, transform, batch_size, workers, rank, ranks, skip_bad_images, processes)


class TrainingBatches:
    """One epoch: (images float32 (B, 3, S, S), labels int32 (B,)) or, with ``mix``, targets float32 (B, classes).

    Sample i of batch b on rank r stands at position r + (b*B + i)*ranks of the epoch; its random numbers come from
    (seed, epoch, position), a batch's mixing from (seed, epoch, position of its first sample). So the stream is the
    same for any number of workers and after starting at ``start_batch``, and two ranks see the pictures that one rank
    with the doubled batch sees.

    len(): what is left of the epoch. skipped: pictures that could not be read, filled while iterating; the next
    readable picture took the place of each.
    """

    def __init__(self, source: Source, transform: TrainTransform, order: EpochOrder, *, epoch: int, seed: int,
                 start_batch: int, workers: int, processes: bool, mix: Mixing | None, skip_bad_images: bool):
        self._source, self._transform, self._order, self._mix = source, transform, order, mix
        self._epoch, self._seed, self._start_batch = epoch, seed, start_batch
        self._workers, self._processes, self._skip_bad_images = workers, processes, skip_bad_images
        self._memory = BatchMemory()
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return max(0, len(self._order) - self._start_batch)

    @property
    def batch_size(self) -> int:
        return len(self._order.positions(0))

    def positions(self, number: int) -> np.ndarray:
        """Where in the epoch, counted over all ranks, the pictures of batch ``number`` stand."""
        return self._order.positions(number)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.skipped = []
        numbers = range(self._start_batch, len(self._order))
        for images, targets, bad in in_order(self._batch, numbers, self._workers, self._processes):
            paths = [self._source.where(index) for index in bad]
            self.skipped += [path for path in paths if path not in self.skipped]
            yield images, targets

    def _batch(self, number: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
        positions, pictures = self._order.positions(number), self._order.pictures(number)
        size = self._transform.image_size
        images = self._memory.empty((len(pictures), 3, size, size))
        labels = np.empty(len(pictures), np.int32)
        bad: list[int] = []
        planned = picture = None
        for slot, (position, index) in enumerate(zip(positions.tolist(), pictures.tolist())):
            if index != planned:  # the repeats of a picture are neighbours: decode it once
                planned, (used, picture) = index, self._read(index, bad)
            self._transform(picture, generator(self._seed, self._epoch, "picture", position), images[slot])
            labels[slot] = self._source.labels[used]
        if self._mix is None:
            return images, labels, bad
        rng = generator(self._seed, self._epoch, "mixing", int(positions[0]))
        return (*self._mix(images, labels, rng, self._epoch), bad)

    def _read(self, index: int, bad: list[int]) -> tuple[int, Image.Image]:
        """The picture, or with skip_bad_images the next readable one: (its number, pixels)."""
        for step in range(_GIVE_UP_AFTER):
            candidate = (index + step) % len(self._source)
            try:
                return candidate, self._source.read(candidate)
            except UserError:
                if not self._skip_bad_images:
                    raise
                bad.append(candidate)
        raise UserError(f"{_GIVE_UP_AFTER} pictures in a row cannot be read, the last is "
                        f"{self._source.where(candidate)}")


def training_batches(source: Source, transform: TrainTransform, batch_size: int, *, epoch: int, seed: int,
                     start_batch: int = 0, repeats: int = 1, rank: int = 0, ranks: int = 1, workers: int = 0,
                     processes: bool = False, mix: Mixing | None = None, drop_last: bool = True,
                     skip_bad_images: bool = False) -> TrainingBatches:
    """See `TrainingBatches`. repeats: views of a picture in an epoch (repeated augmentation); 0 or 1: off."""
    order = EpochOrder(len(source), batch_size, seed=seed, epoch=epoch, repeats=max(1, repeats), rank=rank, ranks=ranks,
                       drop_last=drop_last)
    return TrainingBatches(source, transform, order, epoch=epoch, seed=seed, start_batch=start_batch, workers=workers,
                           processes=processes, mix=mix, skip_bad_images=skip_bad_images)
