"""Batches reuse memory that nobody looks at any more, and no other."""
from __future__ import annotations

import gc
import pickle

import numpy as np

from mindeit.data import EvalTransform, TrainTransform, evaluation_batches, open_source, training_batches
from mindeit.data.batch_memory import BatchMemory


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_dropped_memory_is_used_again():
    memory = BatchMemory()
    first = memory.empty((4, 3, 8, 8))
    place = address(first)
    del first
    smaller = memory.empty((2, 3, 8, 8))
    assert address(smaller) == place and smaller.shape == (2, 3, 8, 8) and smaller.dtype == np.float32
    del smaller
    assert memory.empty((8, 3, 8, 8)).size == 8 * 3 * 8 * 8


def test_a_view_or_a_buffer_keeps_its_memory():
    for look in (lambda batch: batch[1:], lambda batch: batch.reshape(-1)[5:].T[::2], memoryview,
                 lambda batch: np.frombuffer(batch, np.uint8)):
        memory = BatchMemory()
        batch = memory.empty((4, 3, 8, 8))
        batch.fill(1)
        kept = look(batch)
        expected = np.array(kept)
        del batch
        gc.collect()
        memory.empty((4, 3, 8, 8)).fill(2)
        assert np.array_equal(np.asarray(kept), expected)


def test_it_is_writable_and_pickles_as_an_empty_one():
    memory = BatchMemory()
    batch = memory.empty((2, 2))
    batch[:] = 3
    assert batch.sum() == 12 and pickle.loads(pickle.dumps(memory)).empty((1,)).shape == (1,)
    assert np.array_equal(pickle.loads(pickle.dumps(batch)), batch)


def test_batches_that_are_kept_stay_as_they_were():
    source = open_source("digits", None, "val")
    for loader in (training_batches(source, TrainTransform(16), 30, epoch=0, seed=0, workers=2),
                   evaluation_batches(source, EvalTransform(16), 30, workers=2)):
        kept = [images[3:5] for images, _ in loader]
        fresh = [images[3:5].copy() for images, _ in loader]  # every batch is dropped at once here
        assert all(np.array_equal(a, b) for a, b in zip(kept, fresh)) and len(kept) == len(fresh) == 12
