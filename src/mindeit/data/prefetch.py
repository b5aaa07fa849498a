"""Work done ahead of its reader, in order: by threads, by processes, or in place."""
from __future__ import annotations

import collections
import multiprocessing
import signal
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Callable

import numpy as np

from mindeit.errors import UserError


def in_order(work: Callable[[int], Any], numbers: Iterable[int], workers: int = 0,
             processes: bool = False) -> Iterator[Any]:
    """``work(number)`` for each number, in order, computed up to ``workers + 1`` results ahead.

    workers=0 works in place. What a worker raises is raised here; a worker process that died is a `UserError`.
    """
    _keep_freed_memory()
    if workers <= 0:
        yield from map(work, numbers)
        return
    pool = _pool(work, workers, processes)
    call = _call_work if processes else work
    try:
        waiting: collections.deque[Future] = collections.deque()
        for number in numbers:
            waiting.append(pool.submit(call, number))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError("a data worker process was killed (out of memory?); "
                        "use fewer workers, or threads instead of processes") from error
    finally:  # also when the reader stops early: nothing may keep running behind its back
        pool.shutdown(wait=True, cancel_futures=True)


def _keep_freed_memory() -> None:
    """glibc hands freed memory back to the kernel after every picture and asks for it again at the next, which costs
    up to a fifth of the pipeline in page faults. Freeing one large block, never touched, raises its threshold."""
    np.empty(24 << 20, np.uint8)


def _pool(work: Callable[[int], Any], workers: int, processes: bool) -> Executor:
    if not processes:
        return ThreadPoolExecutor(workers, thread_name_prefix="data")
    # spawn, not fork: the parent runs MindSpore's threads, and a fork copies their locks in whatever state they are
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _remember_work, (work,))


_worker: dict[str, Callable[[int], Any]] = {}  # of a worker process: its work is sent once, not with every number


def _remember_work(work: Callable[[int], Any]) -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # what a launcher sends is for the rank, not for its workers
        signal.signal(number, signal.SIG_IGN)
    _keep_freed_memory()
    _worker["work"] = work


def _call_work(number: int) -> Any:
    return _worker["work"](number)


class WaitTimer:
    """Iterates over ``batches`` and measures how long the reader had to wait for them.

    share: waiting time over total time since the iteration began, 0..1.
    """

    def __init__(self, batches: Iterable[Any]):
        self._batches = batches
        self._started: float | None = None
        self.waited = 0.0

    def __iter__(self) -> Iterator[Any]:
        self._started, self.waited = time.perf_counter(), 0.0
        iterator = iter(self._batches)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - asked
            yield batch

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def share(self) -> float:
        total = time.perf_counter() - self._started if self._started is not None else 0.0
        return self.waited / total if total > 0 else 0.0
