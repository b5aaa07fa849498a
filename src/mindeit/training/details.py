"""What an evaluation tells beyond accuracy: entries for a JSON file, rows of a CSV file, one line for the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Callable

import numpy as np

from mindeit.training import metrics
from mindeit.training.metrics import Calibration, ClassTable, Scores
from mindeit.training.predictions import Predictions

MOST_CLASSES = 200  # of a confusion matrix that is written whole
CONFUSIONS, MISTAKES, TOP = 100, 20, 5


@dataclass(frozen=True)
class Details:
    """``names``: the classes'; ``where``: an image's file by its number; ``stored``: the checkpoint's temperature, by
    which scores are those of predict.py."""

    predictions: Predictions
    names: Sequence[str]
    where: Callable[[int], str]
    stored: float | None = None

    @cached_property
    def plain(self) -> Calibration:
        return self._at(1.0)

    @cached_property
    def fitted(self) -> Calibration:
        """At the temperature that suits these images best."""
        return self._at(metrics.fit_temperature(self.predictions.logits, self.predictions.labels))

    @property
    def temperature_found(self) -> bool:
        """Not at an end of what was searched."""
        low, high = metrics.TEMPERATURES
        return 1.01 * low < self.fitted.temperature < 0.99 * high

    @cached_property
    def scores(self) -> Scores:
        return metrics.score(self.predictions.logits, self.predictions.labels, self.stored or 1.0)

    def line(self) -> str:
        plain, fitted = self.plain, self.fitted
        f1 = metrics.macro_averages(self.predictions.labels, self.predictions.predicted)[2]
        return (
            f"ECE {100 * plain.ece:.2f} % ({100 * fitted.ece:.2f} % at temperature {fitted.temperature:.3g}), "
            f"macro F1 {100 * f1:.2f} %"
        )

    def added_to(self, results: dict[str, Any]) -> dict[str, Any]:
        """The results of `report.as_json` and more, of every class too. Shares are in percent, scores 0..1; None: there
        is no ground for a figure. ``checkpoint``: the calibration by the stored temperature, where there is one."""
        labels, predicted, classes = self.predictions.labels, self.predictions.predicted, self.predictions.num_classes
        table = metrics.class_table(labels, predicted, classes)
        whole = classes <= MOST_CLASSES
        calibrations = {"plain": self.plain, "fitted": self.fitted}
        if self.stored:
            calibrations["checkpoint"] = self._at(self.stored)
        return {
            **results,
            "classes": [{**row, **more} for row, more in zip(results["classes"], _rows(table))],
            "balanced_accuracy": 100 * float(np.nanmean(table.recall)),
            "macro": dict(zip(("precision", "recall", "f1"), map(_percent, metrics.macro_averages(labels, predicted)))),
            "calibration": {name: _in_percent(found) for name, found in calibrations.items()},
            "most_confident_mistakes": self._mistakes(),
            "largest_confusions": [
                [self.names[true], self.names[taken_for], count]
                for true, taken_for, count in metrics.largest_confusions(labels, predicted, CONFUSIONS)
            ],
            "confusion_matrix": metrics.confusion_matrix(labels, predicted, classes).tolist() if whole else None,
        }

    def rows(self) -> Iterator[list[Any]]:
        """A head, then a row an image: file, true and predicted class, score, and the best classes with theirs."""
        all_ = self.predictions
        best = metrics.best_classes(all_.logits, min(TOP, all_.num_classes), self.stored or 1.0)
        places = range(1, best[0].shape[1] + 1)
        yield ["file", "true", "predicted", "score", *(f"{what}_{n}" for n in places for what in ("name", "score"))]
        for index, label, classes, scores in zip(all_.indices.tolist(), all_.labels.tolist(), *best):
            named = [entry for each, chance in zip(classes, scores.tolist()) for entry in (self.names[each], chance)]
            yield [self.where(index), self.names[label], *named[:2], *named]

    def _at(self, temperature: float) -> Calibration:
        return metrics.calibration(self.predictions.logits, self.predictions.labels, temperature)

    def _mistakes(self) -> list[dict[str, Any]]:
        labels, predicted, scores = self.predictions.labels, self.predictions.predicted, self.scores.confidence
        return [
            {
                "file": self.where(int(self.predictions.indices[row])),
                "true": self.names[labels[row]],
                "predicted": self.names[predicted[row]],
                "score": float(scores[row]),
            }
            for row in metrics.confident_mistakes(scores, labels, predicted, MISTAKES)
        ]


def _rows(table: ClassTable) -> Iterator[dict[str, float | None]]:
    for precision, recall, f1 in zip(table.precision.tolist(), table.recall.tolist(), table.f1.tolist()):
        yield {"precision": _percent(precision), "recall": _percent(recall), "f1": _percent(f1)}


def _percent(share: float | None) -> float | None:
    return None if share is None or np.isnan(share) else 100 * share


def _in_percent(found: Calibration) -> dict[str, Any]:
    entries = asdict(found)
    for each in entries["bins"]:
        each.update({key: _percent(each[key]) for key in ("low", "high", "confidence", "accuracy")})
    return {**entries, "ece": 100 * found.ece}
