"""Prepares batches ahead of their reader, in order: in place or by threads. Processes: `mindeit.data.processes`."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Protocol

import numpy as np

from mindeit.data.batch_memory import BatchMemory, Layout
from mindeit.errors import UserError

Arrays = tuple[np.ndarray, ...]
Result = tuple[Arrays, Any]  # the arrays of a batch, and what the work returned beside them
Submit = Callable[[Any], Callable[[], Result]]  # a task -> what waits for its result


class Work(Protocol):
    """Fills the arrays of a batch; what it returns beside them is small. For processes it has to be picklable."""

    def layout(self, task: Any) -> Layout: ...

    def __call__(self, *task_and_arrays: Any, **_: Any) -> Any: ...


class Workers:
    """Does the work in place when the reader asks for it. ``ahead``: how many tasks are begun earlier."""

    ahead = 0

    def __init__(self) -> None:
        self._memory = BatchMemory()

    def map(self, work: Work, tasks: Iterable[Any]) -> Iterator[Result]:
        """The result of each task, in order. What the work raises is raised here."""
        keep_freed_memory()
        with self._submitting(work) as submit:
            waiting: collections.deque[Callable[[], Result]] = collections.deque()
            for task in tasks:
                waiting.append(submit(task))
                if len(waiting) > self.ahead:
                    yield waiting.popleft()()
            while waiting:
                yield waiting.popleft()()

    def _submitting(self, work: Work) -> contextlib.AbstractContextManager[Submit]:
        return contextlib.nullcontext(lambda task: lambda: self._do(work, task))

    def _do(self, work: Work, task: Any) -> Result:
        arrays, _ = self._memory.lend(work.layout(task))
        return arrays, work(task, *arrays)


class Threads(Workers):
    """``count`` threads, as long as there are tasks. Python's global lock lets about four compute at once."""

    def __init__(self, count: int) -> None:
        super().__init__()
        check_count(count)
        self.ahead = count

    @contextlib.contextmanager
    def _submitting(self, work: Work) -> Iterator[Submit]:
        pool = ThreadPoolExecutor(self.ahead, thread_name_prefix="data")
        try:
            yield lambda task: pool.submit(self._do, work, task).result
        finally:  # also when the reader stops early: no thread may keep running
            pool.shutdown(wait=True, cancel_futures=True)


def check_count(count: int) -> None:
    if count < 1:
        raise UserError(f"there are {count} data workers; allowed: 1 and more")


def keep_freed_memory() -> None:
    """glibc hands freed memory back to the kernel after every image and asks for it again at the next, which costs
    up to a fifth of the pipeline in page faults. Freeing one large block, never touched, raises its threshold."""
    np.empty(24 << 20, np.uint8)
