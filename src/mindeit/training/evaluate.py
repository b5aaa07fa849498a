"""Accuracy and loss on a data set; each image counts once, on one device or many."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Callable

import numpy as np

from mindeit.errors import UserError
from mindeit.runtime.cluster import Cluster

Batch = tuple[np.ndarray, ...]  # images or logits, labels


@dataclass(frozen=True)
class Evaluation:
    """``hits`` and ``counts`` are per class: right at rank one, right among the best ``k``, and how many there were."""

    k: int
    top1_hits: np.ndarray
    topk_hits: np.ndarray
    counts: np.ndarray
    loss: float
    seconds: float

    @property
    def images(self) -> int:
        return int(self.counts.sum())

    @property
    def top1(self) -> float:
        return 100 * float(self.top1_hits.sum()) / self.images

    @property
    def topk(self) -> float:
        return 100 * float(self.topk_hits.sum()) / self.images

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds

    def __str__(self) -> str:
        return f"* Acc@1 {self.top1:.3f} Acc@{self.k} {self.topk:.3f} loss {self.loss:.3f}"


def evaluate(
    predict: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[Batch],
    num_classes: int,
    cluster: Cluster,
    *,
    kept: list[Batch] | None = None,
    answers: np.ndarray | None = None,
) -> Evaluation:
    """``predict`` turns images (batch, 3, S, S) into logits; a negative label marks a row that is not an image.

    ``kept`` collects this rank's logits (float32) and labels, batch by batch, of the images alone.
    ``answers`` (images, most) are the right classes of images that have several, by ascending number and the last one
    repeated. Labels are their rows then, and the likeliest of them stands for the label.
    """
    k = min(5, num_classes)
    sums = np.zeros((3, num_classes))  # hits at rank one, hits among the best k, images
    loss, start = 0.0, time.perf_counter()
    for images, labels in batches:
        real = labels >= 0
        logits, labels = predict(images)[real], labels[real]
        if answers is not None:
            labels = likeliest(logits, answers[labels])
        if kept is not None:
            kept.append((logits.astype(np.float32, copy=False), labels))
        logits = logits.astype(np.float64)
        if not np.isfinite(logits).all():
            raise UserError("the model's logits are not finite; in half precision try amp_level O0")
        rank = rank_of_label(logits, labels)
        for row, chosen in enumerate((rank < 1, rank < k, rank >= 0)):
            np.add.at(sums[row], labels[chosen], 1)
        loss += cross_entropy(logits, labels).sum()
    totals = cluster.total(np.append(sums, loss))
    top1_hits, topk_hits, counts = totals[:-1].reshape(3, -1).astype(int)
    if counts.sum() == 0:
        raise UserError("no image could be read; there is nothing to evaluate")
    return Evaluation(k, top1_hits, topk_hits, counts, totals[-1] / counts.sum(), time.perf_counter() - start)


def likeliest(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Which of ``classes`` (batch, n) has the highest logit, (batch,); among equals the first."""
    best = np.take_along_axis(logits, classes, 1).argmax(1)
    return classes[np.arange(len(classes)), best]


def rank_of_label(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes score higher than the label, (batch,); among equals the lower class number comes first."""
    own = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    return ((logits > own) | ((logits == own) & earlier)).sum(1)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Per image, (batch,)."""
    shifted = logits - logits.max(1, keepdims=True)
    return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
