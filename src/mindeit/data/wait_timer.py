"""How long a reader waits for its batches."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any


class WaitTimer:
    """Iterates over ``batches`` and measures how long the reader had to wait for them.

    share: waiting time over total time since the iteration began, 0..1.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
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

    @property
    def share(self) -> float:
        total = time.perf_counter() - self._started if self._started is not None else 0.0
        return self.waited / total if total > 0 else 0.0
