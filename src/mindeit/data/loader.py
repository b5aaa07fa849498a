"""Batches for evaluation and training."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mindeit.data.batch_memory import Layout
from mindeit.data.images import Source
from mindeit.data.mixing import Mixing
from mindeit.data.sampler import EpochOrder
from mindeit.data.streams import generator, generators
from mindeit.data.train_transform import TrainTransform
from mindeit.data.transforms import EvalTransform
from mindeit.data.workers import Arrays, Result, Workers
from mindeit.errors import UserError

NO_LABEL = -1
_GIVE_UP_AFTER = 100  # bad images in a row


class _Evaluation:
    """Fills an evaluation batch; a task is its positions. Returns the numbers of the images that were left out."""

    def __init__(self, source: Source, transform: EvalTransform, skip_bad_images: bool, uint8: bool) -> None:
        self._source, self._transform, self._skip_bad_images = source, transform, skip_bad_images
        self._type = np.uint8 if uint8 else np.float32

    def layout(self, positions: np.ndarray) -> Layout:
        size = self._transform.image_size
        return ((len(positions), 3, size, size), self._type), ((len(positions),), np.int32)

    def __call__(self, positions: np.ndarray, images: np.ndarray, labels: np.ndarray) -> list[int]:
        labels.fill(NO_LABEL)
        for slot, position in enumerate(positions.tolist()):
            if self._fill(images[slot], position):
                labels[slot] = self._source.labels[position]
            else:
                images[slot] = 0
        return [position for position in positions[labels == NO_LABEL].tolist() if position < len(self._source)]

    def _fill(self, pixels: np.ndarray, position: int) -> bool:
        """False if there is no image for ``pixels``."""
        if position >= len(self._source):
            return False
        try:
            image = self._source.read(position)
        except UserError:
            if not self._skip_bad_images:
                raise
            return False
        self._transform(image, pixels)
        return True


class EvaluationBatches:
    """One pass over a source: (images float32 (B, 3, S, S), labels int32 (B,)), always full batches. With ``uint8``
    images are levels 0..255, which the reader has to normalise.

    Batch b of rank r holds positions b*B*ranks + r*B ... + B-1. Positions past the end and skipped images are zeros
    with label -1, so over all ranks each image counts exactly once and every rank takes the same number of steps.
    bad: numbers of the images that could not be read, filled while iterating; skipped: their paths; indices: numbers of
    the others on this rank, in the order of the batches.
    """

    def __init__(
        self,
        source: Source,
        transform: EvalTransform,
        batch_size: int,
        workers: Workers,
        rank: int,
        ranks: int,
        skip_bad_images: bool,
        uint8: bool,
    ) -> None:
        self._source, self._batch_size, self._workers = source, batch_size, workers
        self._rank, self._ranks = rank, ranks
        self._work = _Evaluation(source, transform, skip_bad_images, uint8)
        self.bad: list[int] = []

    @property
    def images(self) -> int:
        """Their number, over all ranks."""
        return len(self._source)

    @property
    def skipped(self) -> list[str]:
        return [self._source.where(index) for index in self.bad]

    @property
    def indices(self) -> np.ndarray:
        positions = np.concatenate([self._positions(number) for number in range(len(self))])
        return positions[(positions < len(self._source)) & ~np.isin(positions, self.bad)]

    def __len__(self) -> int:
        return -(-len(self._source) // (self._batch_size * self._ranks))

    def __iter__(self) -> Iterator[Arrays]:
        self.bad = []
        yield from map(self._note_bad, self._workers.map(self._work, map(self._positions, range(len(self)))))

    def _note_bad(self, result: Result) -> Arrays:
        arrays, bad = result
        self.bad += bad
        return arrays

    def _positions(self, number: int) -> np.ndarray:
        return (number * self._ranks + self._rank) * self._batch_size + np.arange(self._batch_size)


def evaluation_batches(
    source: Source,
    transform: EvalTransform,
    batch_size: int,
    *,
    workers: Workers | None = None,
    rank: int = 0,
    ranks: int = 1,
    skip_bad_images: bool = False,
    uint8: bool = False,
) -> EvaluationBatches:
    """See `EvaluationBatches`. workers: `Threads` or `Processes` that prepare batches ahead; None: in place."""
    return EvaluationBatches(source, transform, batch_size, workers or Workers(), rank, ranks, skip_bad_images, uint8)


class _TrainingTask(NamedTuple):
    """One training batch."""

    epoch: int
    positions: np.ndarray  # in the epoch, counted over all ranks
    images: np.ndarray  # the number of each in the source


class _Training:
    """Fills a training batch. Returns the numbers of the images that could not be read."""

    def __init__(
        self,
        source: Source,
        transform: TrainTransform,
        seed: int,
        mix: Mixing | None,
        skip_bad_images: bool,
        uint8: bool,
    ) -> None:
        self._source, self._transform, self._seed, self._mix = source, transform, seed, mix
        self._skip_bad_images = skip_bad_images
        keep_levels = transform.keeps_levels and (mix is None or mix.keeps_levels)
        self._type = np.uint8 if uint8 and keep_levels else np.float32

    def layout(self, task: _TrainingTask) -> Layout:
        size, count = self._transform.image_size, len(task.positions)
        targets = ((count,), np.int32) if self._mix is None else ((count, self._mix.num_classes), np.float32)
        return ((count, 3, size, size), self._type), targets

    def __call__(self, task: _TrainingTask, images: np.ndarray, targets: np.ndarray) -> list[int]:
        labels, bad = self._fill(task, images)
        if self._mix is None:
            targets[:] = labels
        else:
            rng = generator(self._seed, task.epoch, "mixing", int(task.positions[0]))
            targets[:] = self._mix(images, labels, rng, task.epoch)[1]
        return bad

    def _fill(self, task: _TrainingTask, images: np.ndarray) -> tuple[np.ndarray, list[int]]:
        labels = np.empty(len(images), np.int32)
        bad: list[int] = []
        planned = None
        rngs = generators(self._seed, task.epoch, "image", task.positions)
        for slot, (index, rng) in enumerate(zip(task.images.tolist(), rngs)):
            if index != planned:  # the repeats of an image are neighbours: decode it once
                planned, (used, image) = index, self._read(index, bad)
            self._transform(image, rng, images[slot])
            labels[slot] = self._source.labels[used]
        return labels, bad

    def _read(self, index: int, bad: list[int]) -> tuple[int, Image.Image]:
        """The image, or with skip_bad_images the next readable one: (its number, pixels)."""
        for step in range(_GIVE_UP_AFTER):
            candidate = (index + step) % len(self._source)
            try:
                return candidate, self._source.read(candidate)
            except UserError:
                if not self._skip_bad_images:
                    raise
                bad.append(candidate)
        raise UserError(f"{_GIVE_UP_AFTER} images in a row cannot be read, the last is {self._source.where(candidate)}")


class TrainingBatches:
    """One epoch: (images float32 (B, 3, S, S), labels int32 (B,)) or, with ``mix``, targets float32 (B, classes).

    Sample i of batch b on rank r stands at position r + (b*B + i)*ranks of the epoch; its random numbers come from
    (seed, epoch, position), a batch's mixing from (seed, epoch, position of its first sample). So the stream is the
    same for any workers and after starting at ``start_batch``, and two ranks see the images that one rank with the
    doubled batch sees.

    len(): what is left of the epoch. skipped: images that could not be read, filled while iterating; the next
    readable image took the place of each.
    """

    def __init__(self, data: TrainingData, order: EpochOrder, epoch: int, start_batch: int) -> None:
        self._data, self._order, self._epoch, self._start_batch = data, order, epoch, start_batch
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return max(0, len(self._order) - self._start_batch)

    @property
    def batch_size(self) -> int:
        return len(self._order.positions(0))

    def positions(self, number: int) -> np.ndarray:
        """Where in the epoch, counted over all ranks, the images of batch ``number`` stand."""
        return self._order.positions(number)

    def __iter__(self) -> Iterator[Arrays]:
        self.skipped = []
        tasks = map(self._task, range(self._start_batch, len(self._order)))
        yield from map(self._note_bad, self._data.workers.map(self._data.work, tasks))

    def _task(self, number: int) -> _TrainingTask:
        return _TrainingTask(self._epoch, self._order.positions(number), self._order.images(number))

    def _note_bad(self, result: Result) -> Arrays:
        arrays, bad = result
        paths = [self._data.source.where(index) for index in bad]
        self.skipped += [path for path in dict.fromkeys(paths) if path not in self.skipped]
        return arrays


class TrainingData:
    """What all epochs of a run share. It is sent to worker processes once, not every epoch.

    repeats: views of an image in an epoch (repeated augmentation); 0 or 1: off. workers: `Threads` or `Processes` that
    prepare batches ahead; None: in place. uint8: images stay levels 0..255, which the reader has to normalise, unless
    erasing or mixup makes other values of them.
    """

    def __init__(
        self,
        source: Source,
        transform: TrainTransform,
        batch_size: int,
        *,
        seed: int,
        repeats: int = 1,
        rank: int = 0,
        ranks: int = 1,
        workers: Workers | None = None,
        mix: Mixing | None = None,
        drop_last: bool = True,
        skip_bad_images: bool = False,
        uint8: bool = False,
    ) -> None:
        self.source, self.workers = source, workers or Workers()
        self.work = _Training(source, transform, seed, mix, skip_bad_images, uint8)
        self._order = partial(
            EpochOrder, len(source), batch_size, seed=seed, repeats=repeats, rank=rank, ranks=ranks, drop_last=drop_last
        )

    def epoch(self, epoch: int, start_batch: int = 0) -> TrainingBatches:
        return TrainingBatches(self, self._order(epoch=epoch), epoch, start_batch)


def training_batches(
    source: Source, transform: TrainTransform, batch_size: int, *, epoch: int, start_batch: int = 0, **options: Any
) -> TrainingBatches:
    """One epoch alone, see `TrainingBatches`; the options are those of `TrainingData`."""
    return TrainingData(source, transform, batch_size, **options).epoch(epoch, start_batch)
