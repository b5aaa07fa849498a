"""Memory for batches that goes round: what a reader has dropped holds a later batch."""
from __future__ import annotations

import collections
import weakref

import numpy as np


class BatchMemory:
    """Makes arrays like `np.empty`. Above 32 MB malloc gives freed memory back to the kernel, which clears every page
    before it hands it out again; that was a twelfth of the pipeline's time.

    It lends memory anew only when no array, view or buffer on it is left, and holds no more than was in use at once.
    """

    def __init__(self) -> None:
        self._free: collections.deque[np.ndarray] = collections.deque()

    def __reduce__(self) -> tuple:
        return BatchMemory, ()  # a worker process begins with none

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """float32, with whatever was there before."""
        count = int(np.prod(shape))
        memory = self._take(count)
        # through a memoryview, because a view of a plain array would refer to `memory` instead of `array`
        array = np.frombuffer(memoryview(memory), np.float32, count)
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array.reshape(shape)

    def _take(self, count: int) -> np.ndarray:
        try:
            memory = self._free.pop()
        except IndexError:
            return np.empty(count, np.float32)
        return memory if len(memory) >= count else np.empty(count, np.float32)
