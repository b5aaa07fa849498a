"""The page: one run, or several beside one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from mindeit.report import charts
from mindeit.report.run_record import RunRecord
from mindeit.runtime.log import span
from mindeit.training import metrics
from mindeit.training.details import Details

MOST_CLASSES = 25  # of a confusion matrix; more are listed by their largest confusions
CONFUSIONS = 20


@dataclass(frozen=True)
class Mistake:
    """``image`` and ``attention`` are addresses of thumbnails; attention is "" where the model has none to show."""

    image: str
    attention: str
    file: str
    true: str
    predicted: str
    score: float


@dataclass(frozen=True)
class RunReport:
    """``checkpoint`` is what was evaluated, ``details`` what came of it; None: the run evaluates nothing. ``samples``:
    addresses of images as training sees them."""

    record: RunRecord
    model: str = ""
    data: str = ""
    checkpoint: str = ""
    details: Details | None = None
    mistakes: Sequence[Mistake] = ()
    samples: Sequence[str] = ()
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.record.folder.name

    @property
    def accuracy(self) -> float | None:
        if self.details is None:
            return None
        found = self.details.predictions
        return 100 * float((found.predicted == found.labels).mean())

    @property
    def tiles(self) -> dict[str, str]:
        """The figures that a reader looks for first."""
        found = {"epochs": str(len(self.record.history)), "training": span(self.record.seconds)}
        if self.details is not None:
            labels, predicted = self.details.predictions.labels, self.details.predictions.predicted
            found = {
                "accuracy": f"{self.accuracy:.2f} %",
                "macro F1": f"{100 * metrics.macro_averages(labels, predicted)[2]:.2f} %",
                "calibration error": f"{100 * self.details.plain.ece:.2f} %",
                "held-out images": f"{len(labels):,}",
                **found,
            }
        return found

    @property
    def curves(self) -> list[tuple[str, str, list[str]]]:
        """(title, chart, names of its lines)."""
        panels = {
            "Loss": {"train_loss": "training", "val_loss": "held out", "ema_loss": "held out, average"},
            "Accuracy, %": {"acc1": "model", "ema_acc1": "average of its weights"},
            "Learning rate": {"lr": "learning rate"},
        }
        found = []
        for title, keys in panels.items():
            shown = [charts.Line(name, self.record.points(key)) for key, name in keys.items()]
            chart = charts.lines(title, shown)
            if chart:
                found.append((title, chart, [line.name for line in shown if line.points]))
        return found

    @property
    def reliability(self) -> list[tuple[str, str]]:
        """(title, chart) as the scores are, and divided by the temperature that suits them best."""
        if self.details is None:
            return []
        shown = {"As they are": self.details.plain}
        if self.details.temperature_found:
            shown[f"At temperature {self.details.fitted.temperature:.3g}"] = self.details.fitted
        return [
            (f"{title}: error {100 * found.ece:.2f} %, NLL {found.nll:.3f}", charts.reliability(title, found.bins))
            for title, found in shown.items()
        ]

    @property
    def matrix(self) -> list[tuple[str, list[tuple[int, float]]]]:
        """Rows (true class, [(images, share of the row)]); [] where there are too many classes."""
        details = self.details
        if details is None or details.predictions.num_classes > MOST_CLASSES:
            return []
        found = details.predictions
        counts = metrics.confusion_matrix(found.labels, found.predicted, found.num_classes)
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        return [
            (details.names[label], list(zip(row.tolist(), share.tolist())))
            for label, (row, share) in enumerate(zip(counts, shares))
        ]

    @property
    def confusions(self) -> list[tuple[str, str, int]]:
        if self.details is None:
            return []
        found, names = self.details.predictions, self.details.names
        largest = metrics.largest_confusions(found.labels, found.predicted, CONFUSIONS)
        return [(names[true], names[taken_for], count) for true, taken_for, count in largest]

    @property
    def classes(self) -> list[dict[str, Any]]:
        """A row a class; shares in percent, None where there is no ground for one."""
        if self.details is None:
            return []
        found = self.details.predictions
        table = metrics.class_table(found.labels, found.predicted, found.num_classes)
        columns = {name: getattr(table, name).tolist() for name in ("precision", "recall", "f1")}
        return [
            {
                "name": self.details.names[label],
                "images": images,
                **{name: None if np.isnan(of[label]) else 100 * of[label] for name, of in columns.items()},
            }
            for label, images in enumerate(table.images.tolist())
        ]


def compared(reports: Sequence[RunReport]) -> tuple[str, list[str]]:
    """A chart of the runs' accuracies, and the names of its lines; "" for one run."""
    if len(reports) < 2:
        return "", []
    shown = [charts.Line(report.title, _best(report.record)) for report in reports]
    return charts.lines("Accuracy, %", shown), [line.name for line in shown if line.points]


def _best(record: RunRecord) -> list[tuple[float, float]]:
    """The accuracy of each epoch, the model's or its average's."""
    average = dict(record.points("ema_acc1"))
    return [(epoch, max(value, average.get(epoch, value))) for epoch, value in record.points("acc1")]


def differences(reports: Sequence[RunReport]) -> list[tuple[str, list[str]]]:
    """Settings in which the runs differ: (key, value in each run)."""
    found = [{setting.key: setting.value for setting in report.record.settings} for report in reports]
    keys = dict.fromkeys(key for settings in found for key in settings)
    rows = [(key, [settings.get(key, "-") for settings in found]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1 and key not in ("ckpt_save_dir", "resume")]


def render(reports: Sequence[RunReport]) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    chart, names = compared(reports)
    return environment.get_template("page.html.jinja").render(
        reports=reports, chart=chart, names=names, differences=differences(reports) if len(reports) > 1 else []
    )
