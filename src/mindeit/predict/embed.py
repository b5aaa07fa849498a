"""Features of all images of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from mindeit.data.images import Source
from mindeit.data.loader import NO_LABEL, evaluation_batches
from mindeit.data.workers import Workers
from mindeit.predict.feature_table import FeatureTable
from mindeit.predict.predictor import BATCHES, Predictor
from mindeit.runtime.progress import progress

POOLS = ("token", "mean")
_BATCH = BATCHES[-1]  # one graph is compiled


def embed(
    predictor: Predictor,
    parts: Mapping[str, Source],
    *,
    pool: str = "token",
    workers: Workers | None = None,
    skip_bad_images: bool = False,
    shown: bool = True,
) -> tuple[FeatureTable, list[str]]:
    """The features of ``parts``, which know the same classes, and which images were left out.

    pool: see `Predictor.pooled`.
    """
    kept: list[tuple[str, Source, np.ndarray]] = []
    skipped: list[str] = []

    def features() -> Iterator[np.ndarray]:
        for part, source in parts.items():
            batches = evaluation_batches(
                source, predictor.transform, _BATCH, workers=workers, skip_bad_images=skip_bad_images
            )
            for images, labels in batches:
                yield predictor.pooled(images, pool)[labels != NO_LABEL]
            kept.append((part, source, np.setdiff1d(np.arange(len(source)), batches.bad)))
            skipped.extend(batches.skipped)

    images, steps = sum(map(len, parts.values())), sum(-(-len(source) // _BATCH) for source in parts.values())
    found = list(progress(features(), steps, "embed", images=images, shown=shown))
    class_names = next(iter(parts.values())).class_names
    labels = np.concatenate([source.labels[rows] for _, source, rows in kept])
    table = FeatureTable(
        np.concatenate(found).astype(np.float32),
        np.array([source.where(row) for _, source, rows in kept for row in rows.tolist()]),
        np.array([part for part, _, rows in kept for _ in rows]),
        labels if class_names else np.full(len(labels), NO_LABEL, np.int32),
        class_names,
    )
    return table, skipped
