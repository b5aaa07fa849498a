"""Worker processes: they write batches into shared memory; only small messages pass through their sockets."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from mindeit.data.batch_memory import Layout, SharedMemory
from mindeit.data.workers import Arrays, Result, Submit, Work, Workers, check_count
from mindeit.errors import UserError

AVAILABLE = sys.platform == "linux"
# A fresh interpreter, not a fork: the parent runs MindSpore's threads, and a fork copies their locks as they stand.
_START = "import sys; sys.path[:] = sys.argv[4:]; from mindeit.data.process_worker import main; main()"
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # a worker keeps one core busy


@dataclasses.dataclass(frozen=True)
class StoredWork:
    """A pickled `Work` in shared memory: its pickle, then the large arrays it refers to, which all workers share."""

    number: int
    offset: int
    layout: Layout


@dataclasses.dataclass
class _PendingTask:
    """A task that is not done yet. Until then its arrays and its work must stay alive."""

    arrays: Arrays
    work: Work
    reply: tuple[Any, Exception | None] | None = None


class Processes(Workers):
    """``count`` processes. They start with the first task and stay until `close`, for any number of passes.

    One thread at a time may read from them; passes may be left early, and overlap.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        check_count(count)
        if not AVAILABLE:
            raise UserError(
                f"worker processes need Linux, this is {sys.platform}; allowed: python_multiprocessing False"
            )
        self.ahead = count
        self._memory: SharedMemory = SharedMemory()
        self._workers: list[_Worker] = []
        self._turn = 0
        self._stored: weakref.WeakKeyDictionary[Work, tuple[StoredWork, Arrays]] = weakref.WeakKeyDictionary()
        self._works = 0

    def close(self) -> None:
        """End the processes; another pass would start new ones."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def _submitting(self, work: Work) -> contextlib.AbstractContextManager[Submit]:
        if not self._workers:
            self._workers = [_Worker(self._memory.file) for _ in range(self.ahead)]
        stored = self._store(work)
        return contextlib.nullcontext(lambda task: self._submit(work, stored, task))

    def _submit(self, work: Work, stored: StoredWork, task: Any) -> Callable[[], Result]:
        layout = work.layout(task)
        arrays, offset = self._memory.lend(layout)
        worker = self._workers[self._turn % len(self._workers)]
        self._turn += 1
        pending = worker.submit((stored, task, offset, layout), _PendingTask(arrays, work))
        return lambda: worker.result(pending)

    def _store(self, work: Work) -> StoredWork:
        if work not in self._stored:
            buffers: list[pickle.PickleBuffer] = []
            try:
                head = pickle.dumps(work, protocol=5, buffer_callback=buffers.append)
            except Exception as error:  # pickle has no exception of its own for what it cannot do
                raise UserError(
                    f"the data set cannot be sent to worker processes ({error}); allowed: python_multiprocessing False"
                ) from error
            contents = [np.asarray(content) for content in (memoryview(head), *(buffer.raw() for buffer in buffers))]
            layout = [(content.shape, np.uint8) for content in contents]
            arrays, offset = self._memory.lend(layout)
            for array, content in zip(arrays, contents):
                array[:] = content
            self._works += 1
            self._stored[work] = StoredWork(self._works, offset, layout), arrays
        return self._stored[work][0]


class _Worker:
    """One process, seen from its parent. It answers tasks in their order."""

    def __init__(self, memory: int) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        inherited = (theirs.fileno(), memory)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *map(str, inherited), str(os.getpid()), *sys.path],
            env={**os.environ, **_ONE_THREAD},
            stdin=subprocess.DEVNULL,
            pass_fds=inherited,
        )
        theirs.close()
        self._waiting: collections.deque[_PendingTask] = collections.deque()
        self._finalizer = weakref.finalize(self, _end, self._connection, self._process)

    def submit(self, message: tuple, pending: _PendingTask) -> _PendingTask:
        try:
            self._connection.send(message)
        except OSError:
            raise self._died() from None
        self._waiting.append(pending)
        return pending

    def result(self, pending: _PendingTask) -> Result:
        while pending.reply is None:
            try:
                reply = self._connection.recv()
            except (EOFError, OSError):
                raise self._died() from None
            self._waiting.popleft().reply = reply
        value, error = pending.reply
        if error is not None:
            raise error
        return pending.arrays, value

    def end(self) -> None:
        self._finalizer()

    def _died(self) -> UserError:
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name} (out of memory?)" if code < 0 else f"ended with code {code}"
        return UserError(
            f"a data worker process {how}; use fewer workers (num_parallel_workers), or threads "
            "(python_multiprocessing False)"
        )


def _end(connection: Any, process: subprocess.Popen) -> None:
    connection.close()
    process.kill()
    process.wait()
