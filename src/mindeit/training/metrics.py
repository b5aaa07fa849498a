"""What follows from logits and labels: mistakes by class, calibration, the temperature that mends it.

Plain functions of arrays. Shares are 0..1. Large sets go through float64 in blocks, so nothing but the logits is large.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn import metrics

from mindeit.training.evaluate import cross_entropy

BINS = 15
TEMPERATURES = (0.05, 20.0)  # among which the best one is sought
_BLOCK = 1 << 22  # logits at a time


@dataclass(frozen=True)
class Scores:
    """Of each image, (N,): the probability of its likeliest class, minus the log of its label's, and the Brier score:
    the squared distance of all probabilities from 1 for the label and 0 for the others, 0..2."""

    confidence: np.ndarray
    nll: np.ndarray
    brier: np.ndarray


@dataclass(frozen=True)
class Bin:
    """The images with a confidence in (``low``, ``high``]; means are None where there are none."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Means over images of softmax(logits / ``temperature``); ``bins`` draw the reliability diagram."""

    temperature: float
    ece: float
    nll: float
    brier: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class ClassTable:
    """Of each class, (classes,): ``precision`` is NaN where it was never predicted, ``recall`` where it has no images,
    ``f1`` where both is so."""

    images: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def score(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> Scores:
    """(N, classes) and (N,) -> `Scores` of softmax(logits / temperature)."""
    parts = []
    for block, own in _blocks(logits, labels):
        scaled = block / temperature
        probabilities = softmax(scaled, axis=1)
        brier = (probabilities**2).sum(1) - 2 * probabilities[np.arange(len(own)), own] + 1
        parts.append((probabilities.max(1), cross_entropy(scaled, own), brier))
    return Scores(*map(np.concatenate, zip(*parts)))


def calibration(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> Calibration:
    """(N, classes) and (N,) -> how far confidence can be trusted, in `BINS` bins of equal width."""
    scores = score(logits, labels, temperature)
    bins = reliability_bins(scores.confidence, logits.argmax(1) == labels)
    return Calibration(
        temperature,
        expected_calibration_error(bins),
        nll=float(scores.nll.mean()),
        brier=float(scores.brier.mean()),
        bins=bins,
    )


def reliability_bins(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> tuple[Bin, ...]:
    """(N,) and booleans (N,) -> bins of equal width over 0..1."""
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence)
    count, *sums = (np.bincount(place, weights, bins) for weights in (None, confidence, right))
    means = [[float(of) / n if n else None for of, n in zip(each, count.tolist())] for each in sums]
    return tuple(map(Bin, edges[:-1].tolist(), edges[1:].tolist(), count.tolist(), *means))


def expected_calibration_error(bins: tuple[Bin, ...]) -> float:
    """The mean over images of how far the accuracy of their bin is from its confidence."""
    images = sum(each.images for each in bins)
    return sum(each.images * abs((each.accuracy or 0) - (each.confidence or 0)) for each in bins) / images


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature within `TEMPERATURES` that gives the least NLL. It has a single minimum there, for it is convex
    in 1 / temperature; where nearly every image is right it lies at the lower end."""

    def nll(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        return sum(float(cross_entropy(block / temperature, own).sum()) for block, own in _blocks(logits, labels))

    found = minimize_scalar(nll, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """(N,) and (N,) -> (classes, classes): rows are true classes, columns predicted ones."""
    return metrics.confusion_matrix(labels, predicted, labels=np.arange(num_classes))


def largest_confusions(labels: np.ndarray, predicted: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """(true class, predicted class, images) of mistakes, most images first, at most ``most`` of them."""
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], 1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(*pair, count) for pair, count in zip(pairs[order].tolist(), counts[order].tolist())]


def class_table(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> ClassTable:
    """(N,) and (N,) -> `ClassTable`."""
    precision, recall, f1, images = metrics.precision_recall_fscore_support(
        labels, predicted, labels=np.arange(num_classes), zero_division=0
    )
    unseen, unnamed = images == 0, np.bincount(predicted, minlength=num_classes) == 0
    gaps = ((precision, unnamed), (recall, unseen), (f1, unseen & unnamed))
    precision, recall, f1 = (np.where(where, np.nan, values) for values, where in gaps)
    return ClassTable(images, precision, recall, f1)


def macro_averages(labels: np.ndarray, predicted: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1: means over the classes that are true or predicted for some image; undefined is 0."""
    found = metrics.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    return float(found[0]), float(found[1]), float(found[2])


def confident_mistakes(confidence: np.ndarray, labels: np.ndarray, predicted: np.ndarray, most: int) -> np.ndarray:
    """Rows (at most ``most``,) of the images that are wrong, the most confident first."""
    wrong = np.flatnonzero(labels != predicted)
    return wrong[np.argsort(-confidence[wrong], kind="stable")[:most]]


def best_classes(logits: np.ndarray, k: int, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(N, classes) -> the ``k`` likeliest classes, best first and among equals the lowest number, and their
    probabilities: both (N, k)."""
    parts = []
    for block, _ in _blocks(logits, logits):
        best = np.argsort(-block, axis=1, kind="stable")[:, :k]
        parts.append((best, np.take_along_axis(softmax(block / temperature, axis=1), best, 1)))
    classes, probabilities = map(np.concatenate, zip(*parts))
    return classes, probabilities


def _blocks(logits: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A part of the rows at a time, the logits as float64."""
    rows = max(1, _BLOCK // logits.shape[1])
    for start in range(0, len(logits), rows):
        yield logits[start : start + rows].astype(np.float64), labels[start : start + rows]
