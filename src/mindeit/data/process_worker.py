"""The main loop of a worker process: it receives tasks, fills arrays in shared memory, and answers when done."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import traceback
from collections import OrderedDict
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from mindeit.data.batch_memory import Layout, arrays_in, map_region, size_of
from mindeit.data.workers import keep_freed_memory
from mindeit.errors import UserError

_LOOKS_AFTER_PARENT = 1.0  # seconds; see _messages
_WORKS = 2  # training and evaluation
# Signals of a launcher or a terminal are for the rank, which has to save and needs its workers until then.
_FOR_THE_RANK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    """Arguments: the numbers of the socket, of the shared file, and of the parent process."""
    for number in _FOR_THE_RANK:
        signal.signal(number, signal.SIG_IGN)
    keep_freed_memory()
    socket, file, parent = map(int, sys.argv[1:4])
    connection, memory = Connection(socket), _WorkerMemory(file)
    with contextlib.suppress(EOFError, OSError):  # the parent has left
        while _wait(connection, parent):
            connection.send(_reply(memory, *connection.recv()))


def _wait(connection: Connection, parent: int) -> bool:
    """Whether there is something to read; False when the parent has gone, whose end of the socket may live on in
    processes that it forked."""
    while not connection.poll(_LOOKS_AFTER_PARENT):
        if os.getppid() != parent:
            return False
    return True


def _reply(memory: _WorkerMemory, stored: Any, task: Any, offset: int, layout: Layout) -> tuple[Any, Any]:
    try:
        return memory.work(stored)(task, *memory.arrays(offset, layout)), None
    except UserError as error:
        return None, error
    except Exception as error:
        traceback.print_exc()  # the parent raises it again, but only here is it known where it came from
        return None, error


class _WorkerMemory:
    """The shared memory that a worker has mapped, and the work it has unpickled."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._regions: dict[int, np.ndarray] = {}
        self._works: OrderedDict[int, Any] = OrderedDict()

    def arrays(self, offset: int, layout: Layout) -> tuple[np.ndarray, ...]:
        size = size_of(layout)
        if offset not in self._regions or len(self._regions[offset]) < size:
            self._regions[offset] = map_region(self._file, offset, size)
        return arrays_in(self._regions[offset], layout)

    def work(self, stored: Any) -> Any:
        if stored.number not in self._works:
            head, *buffers = self.arrays(stored.offset, stored.layout)
            self._works[stored.number] = pickle.loads(head.data, buffers=buffers)
            while len(self._works) > _WORKS:
                self._works.popitem(last=False)
        return self._works[stored.number]
