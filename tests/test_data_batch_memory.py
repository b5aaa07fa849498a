"""Batches reuse memory that nobody looks at any more, and no other."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest

from mindeit.data import EvalTransform, Threads, TrainTransform, evaluation_batches, open_source, training_batches
from mindeit.data.batch_memory import BatchMemory, SharedMemory

MEMORIES = [BatchMemory, *([SharedMemory] if sys.platform == "linux" else [])]


def lend(memory: BatchMemory, shape: tuple[int, ...]) -> np.ndarray:
    return memory.lend([(shape, np.float32)])[0][0]


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("kind", MEMORIES)
def test_dropped_memory_is_used_again(kind):
    memory = kind()
    first = lend(memory, (4, 3, 8, 8))
    place = address(first)
    del first
    smaller = lend(memory, (2, 3, 8, 8))
    assert address(smaller) == place and smaller.shape == (2, 3, 8, 8) and smaller.dtype == np.float32
    del smaller
    assert lend(memory, (8, 3, 8, 8)).size == 8 * 3 * 8 * 8


@pytest.mark.parametrize("kind", MEMORIES)
def test_a_view_or_a_buffer_keeps_its_memory(kind):
    for look in (
        lambda batch: batch[1:],
        lambda batch: batch.reshape(-1)[5:].T[::2],
        memoryview,
        lambda batch: np.frombuffer(batch, np.uint8),
    ):
        memory = kind()
        batch = lend(memory, (4, 3, 8, 8))
        batch.fill(1)
        kept = look(batch)
        expected = np.array(kept)
        del batch
        gc.collect()
        lend(memory, (4, 3, 8, 8)).fill(2)
        assert np.array_equal(np.asarray(kept), expected)


@pytest.mark.parametrize("kind", MEMORIES)
def test_the_arrays_of_a_batch_lie_side_by_side_and_keep_all_of_it(kind):
    memory = kind()
    (images, labels, none), _ = memory.lend([((5, 3, 2, 2), np.float32), ((5,), np.int32), ((0, 4), np.float64)])
    images[:], labels[:] = 1.5, 7
    assert images.dtype == np.float32 and images.shape == (5, 3, 2, 2) and none.shape == (0, 4)
    assert (images == 1.5).all() and labels.tolist() == [7] * 5
    place = address(images)
    del images
    assert address(lend(memory, (5, 3, 2, 2))) != place and labels.tolist() == [7] * 5


def test_batches_that_are_kept_stay_as_they_were():
    source = open_source("digits", None, "val")
    for loader in (
        training_batches(source, TrainTransform(16), 30, epoch=0, seed=0, workers=Threads(2)),
        evaluation_batches(source, EvalTransform(16), 30, workers=Threads(2)),
    ):
        kept = [images[3:5] for images, _ in loader]
        fresh = [images[3:5].copy() for images, _ in loader]  # every batch is dropped at once here
        assert all(np.array_equal(a, b) for a, b in zip(kept, fresh)) and len(kept) == len(fresh) == 12
