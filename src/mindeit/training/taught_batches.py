"""Batches for a student whose teacher computes outside the graph."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable

import numpy as np

from mindeit.data import TrainingBatches

Answer = Callable[[np.ndarray, np.ndarray], np.ndarray]  # images, targets -> targets with the teacher's logits


class TaughtBatches:
    """Those of ``batches``, with what ``answer`` makes of their targets. ``beside``: it answers for a batch while the
    step before it runs; MindSpore's own graphs take turns."""

    def __init__(self, batches: TrainingBatches, answer: Answer, *, beside: bool) -> None:
        self._batches, self._answer, self._beside = batches, answer, beside
        self.batch_size, self.positions = batches.batch_size, batches.positions
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not self._beside:
            for images, targets in self._batches:
                self.skipped = self._batches.skipped
                yield images, self._answer(images, targets)
            return
        with ThreadPoolExecutor(1) as thread:
            waiting: tuple[np.ndarray, Future[np.ndarray], list[str]] | None = None
            for images, targets in self._batches:
                begun = images, thread.submit(self._answer, images, targets), list(self._batches.skipped)
                if waiting is not None:
                    yield self._finished(*waiting)
                waiting = begun
            if waiting is not None:
                yield self._finished(*waiting)

    def _finished(
        self, images: np.ndarray, answer: Future[np.ndarray], skipped: list[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        self.skipped = skipped
        return images, answer.result()
