"""What features know: k nearest neighbours, a linear classifier, and labels that the neighbours contradict."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from mindeit.errors import UserError
from mindeit.predict.feature_table import FeatureTable

NEIGHBOURS = (1, 5, 20)
_FOLDS = 5
_STEPS = 1000  # of the linear classifier's optimizer
_JUDGES = 10  # neighbours that a label is compared with
_TEMPERATURE = 0.07  # of their weights, as in DINO's classifier (https://arxiv.org/abs/2104.14294)


@dataclasses.dataclass(frozen=True)
class Probe:
    """Shares of right answers: by number of neighbours, and of the linear classifier. ``how``: measured on what."""

    how: str
    neighbours: dict[int, float]
    linear: float

    def lines(self) -> list[str]:
        rows = [(f"k-NN {k}", share) for k, share in self.neighbours.items()] + [("linear", self.linear)]
        return [self.how, *(f"{name:<9} {share:7.2%}" for name, share in rows)]


@dataclasses.dataclass(frozen=True)
class Suspect:
    """An image whose neighbours are of another class. ``confidence``: their weight for ``suggested`` less that for
    ``label``, 0 to 1."""

    file: str
    label: str
    suggested: str
    confidence: float


def probe(table: FeatureTable, train: FeatureTable | None = None, *, seed: int = 0) -> Probe:
    """Learn from ``train``, else from the part "train" if there are others, else by five-fold cross-validation."""
    check_labels(table)
    if train is None and "train" in table.parts and len(set(table.parts)) > 1:
        table, train = table[table.parts != "train"], table[table.parts == "train"]
    if train is not None:
        check_labels(train)
        right = [_right(train, table)]
        how = f"learnt from {len(train):,} images, measured on {len(table):,}"
    else:
        right = list(_cross_validation(table, seed))
        how = f"{len(right)}-fold cross-validation on {len(table):,} images"
    whole = np.concatenate(right, 1).mean(1)
    return Probe(how, dict(zip(NEIGHBOURS, whole[:-1].tolist())), float(whole[-1]))


def joined(table: FeatureTable, train: FeatureTable) -> FeatureTable:
    """Both, where they are of the same features and classes."""
    if table.features.shape[1] != train.features.shape[1]:
        raise UserError(
            f"there are {table.features.shape[1]} features, and {train.features.shape[1]} to learn from; they have to "
            "come from one model"
        )
    if table.class_names != train.class_names:
        strangers = sorted(set(table.class_names) ^ set(train.class_names)) or ["another order"]
        raise UserError(f"the classes are not those to learn from: {', '.join(strangers[:5])}")
    names = ("features", "files", "parts", "labels")
    return FeatureTable(
        **{name: np.concatenate([getattr(train, name), getattr(table, name)]) for name in names},
        class_names=table.class_names,
    )


def check_labels(table: FeatureTable) -> None:
    if (table.labels < 0).any():
        raise UserError("there are no labels; embed a folder with a folder for each class")


def _cross_validation(table: FeatureTable, seed: int) -> Iterator[np.ndarray]:
    counts = np.bincount(table.labels)
    fewest = int(counts[counts > 0].min())
    if fewest < 2:
        name = table.class_names[int(np.flatnonzero(counts == fewest)[0])]
        raise UserError(f"class '{name}' has one image; allowed: 2 and more, or --train")
    folds = StratifiedKFold(min(_FOLDS, fewest), shuffle=True, random_state=seed)
    for learnt, held_out in folds.split(table.features, table.labels):
        yield _right(table[learnt], table[held_out])


def _right(train: FeatureTable, held_out: FeatureTable) -> np.ndarray:
    """Whether each answer is right: a row for each of ``NEIGHBOURS``, and one for the linear classifier."""
    count = min(NEIGHBOURS[-1], len(train))
    search = NearestNeighbors(n_neighbors=count).fit(normalize(train.features))
    nearest = train.labels[search.kneighbors(normalize(held_out.features), return_distance=False)]
    answers = [
        _votes(nearest[:, :k], np.ones(nearest[:, :k].shape), len(train.class_names)).argmax(1) for k in NEIGHBOURS
    ]
    answers.append(_linear(train, held_out.features))
    return np.stack(answers) == held_out.labels


def _votes(labels: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """Labels and weights (n, neighbours) -> the sum of weights for each class, (n, classes)."""
    votes = np.zeros((len(labels), classes), np.float32)
    np.add.at(votes, (np.arange(len(labels))[:, None], labels), weights)
    return votes


def _linear(train: FeatureTable, features: np.ndarray) -> np.ndarray:
    if len(set(train.labels.tolist())) < 2:
        raise UserError("all images are of one class; a classifier needs two and more")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_STEPS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near its end, which is near enough
        return classifier.fit(train.features, train.labels).predict(features)


def suspects(table: FeatureTable) -> list[Suspect]:
    """Labels that the nearest other images contradict, the surest first. A small class has fewer neighbours to ask."""
    check_labels(table)
    features, labels = normalize(table.features), table.labels
    own_kind = np.bincount(labels, minlength=len(table.class_names))[labels]
    if len(table) < 3:
        return []
    distances, nearest = NearestNeighbors(n_neighbors=min(_JUDGES, len(table) - 1)).fit(features).kneighbors()
    weights = np.exp((1 - distances**2 / 2) / _TEMPERATURE)  # of the cosine
    weights[np.arange(nearest.shape[1]) >= np.maximum(1, own_kind - 1)[:, None]] = 0
    votes = _votes(labels[nearest], weights / weights.sum(1, keepdims=True), len(table.class_names))
    rows = np.arange(len(table))
    own, suggested = votes[rows, labels], votes.argmax(1)
    confidence = votes[rows, suggested] - own
    order = np.argsort(-confidence, kind="stable")
    names = table.class_names
    return [
        Suspect(str(table.files[row]), names[labels[row]], names[suggested[row]], round(float(confidence[row]), 4))
        for row in order[confidence[order] > 0].tolist()
    ]
