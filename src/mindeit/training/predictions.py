"""What a model says of each image of a data set, from all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mindeit.runtime.cluster import Cluster


@dataclass(frozen=True)
class Predictions:
    """``logits`` float32 (N, classes), ``labels`` int32 (N,), and ``indices`` (N,): the number of each image in its
    source, ascending."""

    logits: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    @classmethod
    def gathered(
        cls, kept: Sequence[tuple[np.ndarray, ...]], indices: np.ndarray, cluster: Cluster
    ) -> Predictions | None:
        """From what `evaluate` kept on each rank, and the numbers of its images; None where the rank is not 0."""
        own = (*(np.concatenate(parts) for parts in zip(*kept)), indices)
        ranks = [cluster.gather(array) for array in own]
        if not cluster.main:
            return None
        logits, labels, numbers = (parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in ranks)
        if cluster.ranks > 1:  # one rank has them in order, and needs no copy
            order = np.argsort(numbers)
            logits, labels, numbers = logits[order], labels[order], numbers[order]
        return cls(logits, labels, numbers)

    @property
    def num_classes(self) -> int:
        return self.logits.shape[1]

    @cached_property
    def predicted(self) -> np.ndarray:
        """The class of the highest logit, (N,); among equals the lowest number."""
        return self.logits.argmax(1)
