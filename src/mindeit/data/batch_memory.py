"""Memory that batches reuse: a batch that its reader has dropped makes room for a later one."""

from __future__ import annotations

import collections
import math
import mmap
import os
import weakref
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mindeit.errors import UserError

Layout = Sequence[tuple[tuple[int, ...], type]]  # shape and number type of each array of a batch
_ALIGNMENT = 64


class Region(NamedTuple):
    """``offset``: where it begins in the file that worker processes share."""

    memory: np.ndarray  # uint8
    offset: int = 0


class BatchMemory:
    """Makes arrays like `np.empty`. Above 32 MB malloc gives freed memory back to the kernel, which clears every page
    before it hands it out again; that was a twelfth of the pipeline's time.

    Memory is reused only when no array, view or buffer refers to it any more.
    """

    def __init__(self) -> None:
        self._free: collections.deque[Region] = collections.deque()

    def lend(self, layout: Layout) -> tuple[tuple[np.ndarray, ...], int]:
        """Uninitialised arrays, and the offset of their region."""
        region = self._take(max(1, size_of(layout)))
        # through a memoryview, because a view of a plain array would refer to its memory instead of `whole`
        whole = np.frombuffer(region.memory.data, np.uint8)
        weakref.finalize(whole, self._free.append, region).atexit = False
        return arrays_in(whole, layout), region.offset

    def _take(self, size: int) -> Region:
        for _ in range(len(self._free)):
            region = self._free.popleft()
            if len(region.memory) >= size:
                return region
            self._keep_small(region)
        return self._new(size)

    def _keep_small(self, region: Region) -> None:
        """Too small for this batch: here the memory goes back to the kernel."""

    def _new(self, size: int) -> Region:
        return Region(np.empty(size, np.uint8))


class SharedMemory(BatchMemory):
    """The same in an anonymous file, which worker processes inherit.

    The file is in memory but not in /dev/shm, so the size of /dev/shm does not matter. The kernel frees it with the
    last process that holds it, even if that process crashes. Linux only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.file = os.memfd_create("batches")
        weakref.finalize(self, os.close, self.file)
        self._end = 0

    def _keep_small(self, region: Region) -> None:
        self._free.append(region)

    def _new(self, size: int) -> Region:
        size, offset = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE, self._end
        try:  # reserved now: a page that is missing later would kill the process by SIGBUS, without a message
            os.posix_fallocate(self.file, offset, size)
        except OSError as error:
            raise UserError(
                f"no memory for a batch of {size / 2**20:.0f} MiB: {error.strerror}; use a smaller "
                "batch_size or fewer workers (num_parallel_workers)"
            ) from None
        self._end += size
        return Region(map_region(self.file, offset, size), offset)


def map_region(file: int, offset: int, size: int) -> np.ndarray:
    return np.frombuffer(mmap.mmap(file, size, offset=offset), np.uint8)


def size_of(layout: Layout) -> int:
    return sum(_aligned(math.prod(shape) * np.dtype(kind).itemsize) for shape, kind in layout)


def arrays_in(whole: np.ndarray, layout: Layout) -> tuple[np.ndarray, ...]:
    """One array after another in ``whole``, uint8."""
    arrays: list[np.ndarray] = []
    begin = 0
    for shape, kind in layout:
        size = math.prod(shape) * np.dtype(kind).itemsize
        arrays.append(whole[begin : begin + size].view(kind).reshape(shape))
        begin += _aligned(size)
    return tuple(arrays)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
