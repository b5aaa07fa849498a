"""Figures from logits and labels, against scikit-learn, PyTorch and hand calculation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from mindeit.runtime.cluster import Cluster
from mindeit.training import details as details_module
from mindeit.training import metrics
from mindeit.training.details import Details
from mindeit.training.evaluate import evaluate
from mindeit.training.predictions import Predictions

CLASSES = 6


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Overconfident logits of 3,000 images; no image is of class 5, and class 4 is never predicted."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES - 1, 3000)
    logits = rng.normal(size=(3000, CLASSES))
    logits[np.arange(3000), labels] += 1.5
    logits[:, 4] = np.delete(logits, 4, 1).max(1) - 0.5
    return (3 * logits).astype(np.float32), labels


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    return torch.softmax(torch.from_numpy(logits).double() / temperature, 1).numpy()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_nll_and_brier_are_those_of_the_definitions(drawn, temperature):
    logits, labels = drawn
    found, wanted = metrics.score(logits, labels, temperature), probabilities(logits, temperature)
    assert found.confidence == pytest.approx(wanted.max(1), rel=1e-12)
    assert found.nll.mean() == pytest.approx(sklearn_metrics.log_loss(labels, wanted, labels=range(CLASSES)), rel=1e-9)
    assert found.brier == pytest.approx(((wanted - np.eye(CLASSES)[labels]) ** 2).sum(1), abs=1e-12)


def test_blocks_change_nothing(drawn, monkeypatch):
    logits, labels = drawn
    whole, best = metrics.calibration(logits, labels), metrics.best_classes(logits, 3)
    monkeypatch.setattr(metrics, "_BLOCK", 7 * CLASSES)
    parts = metrics.calibration(logits, labels)
    assert (parts.ece, parts.nll, parts.brier, parts.bins) == (whole.ece, whole.nll, whole.brier, whole.bins)
    assert all(map(np.array_equal, metrics.best_classes(logits, 3), best))


def test_bins_are_those_of_scikit_learn(drawn):
    logits, labels = drawn
    confidence, right = probabilities(logits).max(1), logits.argmax(1) == labels
    bins = metrics.reliability_bins(confidence, right)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15, strategy="uniform")
    full = [each for each in bins if each.images]
    assert len(bins) == 15
    assert [each.accuracy for each in full] == pytest.approx(accuracy)
    assert [each.confidence for each in full] == pytest.approx(mean)
    assert sum(each.images for each in bins) == 3000


def test_an_error_of_calibration_by_hand():
    """Two images at 0.6, one of them right, two at 0.9, both right: half of 0.1, and half of 0.1."""
    bins = metrics.reliability_bins(np.array([0.6, 0.6, 0.9, 0.9]), np.array([True, False, True, True]))
    assert [each.images for each in bins if each.images] == [2, 2]
    assert metrics.expected_calibration_error(bins) == pytest.approx(0.1)
    assert bins[0].accuracy is bins[0].confidence is None


def test_a_confidence_on_an_edge_is_in_the_lower_bin():
    bins = metrics.reliability_bins(np.array([0.5, 1.0]), np.array([True, True]), bins=2)
    assert [(each.low, each.high, each.images) for each in bins] == [(0, 0.5, 1), (0.5, 1, 1)]


def test_the_temperature_is_that_of_a_search_through_all(drawn):
    logits, labels = drawn
    found = metrics.fit_temperature(logits, labels)
    tried = np.exp(np.linspace(np.log(0.5), np.log(10), 3001))
    nll = [
        torch.nn.functional.cross_entropy(torch.from_numpy(logits).double() / t, torch.from_numpy(labels))
        for t in tried
    ]
    assert found == pytest.approx(tried[np.argmin(nll)], rel=2e-3)
    assert metrics.score(logits, labels, found).nll.mean() <= min(nll).item() + 1e-12
    assert metrics.fit_temperature(logits / found, labels) == pytest.approx(1, rel=1e-4)


def test_the_temperature_that_labels_were_drawn_by_is_found_and_mends_the_calibration():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (20000, CLASSES)).astype(np.float32)
    chances = probabilities(logits, 2.5).cumsum(1)
    labels = (chances < rng.random((20000, 1))).sum(1).clip(max=CLASSES - 1)
    assert metrics.fit_temperature(logits, labels) == pytest.approx(2.5, rel=0.02)
    assert metrics.calibration(logits, labels).ece > 0.1
    assert metrics.calibration(logits, labels, 2.5).ece < 0.02


def test_the_confusion_matrix_counts_each_image_once_by_rows_of_true_classes():
    labels, predicted = np.array([0, 0, 0, 1, 2]), np.array([0, 1, 1, 1, 0])
    assert metrics.confusion_matrix(labels, predicted, 4).tolist() == [
        [1, 2, 0, 0],
        [0, 1, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert metrics.largest_confusions(labels, predicted, 9) == [(0, 1, 2), (2, 0, 1)]
    assert metrics.largest_confusions(labels, predicted, 1) == [(0, 1, 2)]
    assert metrics.largest_confusions(labels, labels, 1) == []


def test_the_table_of_classes_is_scikit_learns_and_says_where_there_is_no_ground(drawn):
    logits, labels = drawn
    predicted = logits.argmax(1)
    table = metrics.class_table(labels, predicted, CLASSES)
    report = sklearn_metrics.classification_report(labels, predicted, output_dict=True, zero_division=0)
    for label in range(4):
        row = report[str(label)]
        assert (table.precision[label], table.recall[label], table.f1[label], table.images[label]) == pytest.approx(
            (row["precision"], row["recall"], row["f1-score"], row["support"])
        )
    assert np.isnan(table.precision).tolist() == [False] * 4 + [True, False]
    assert np.isnan(table.recall).tolist() == [False] * 5 + [True]
    assert table.f1[4:].tolist() == [0, 0]
    average = report["macro avg"]
    assert metrics.macro_averages(labels, predicted) == pytest.approx(
        (average["precision"], average["recall"], average["f1-score"])
    )


def test_the_most_confident_mistakes_come_first():
    confidence = np.array([0.9, 0.5, 0.8, 0.8, 0.99])
    labels, predicted = np.array([0, 0, 0, 0, 1]), np.array([1, 1, 1, 2, 1])
    assert metrics.confident_mistakes(confidence, labels, predicted, 3).tolist() == [0, 2, 3]


def test_the_best_classes_are_torchs_and_equals_come_by_number(drawn):
    logits, _ = drawn
    classes, scores = metrics.best_classes(logits, 3, temperature=2.0)
    wanted = torch.from_numpy(probabilities(logits, 2.0)).topk(3)
    assert np.array_equal(classes, wanted.indices.numpy())
    assert scores == pytest.approx(wanted.values.numpy(), rel=1e-12)
    assert metrics.best_classes(np.zeros((1, 4), np.float32), 4)[0].tolist() == [[0, 1, 2, 3]]


def test_what_is_kept_of_an_evaluation_are_its_images_alone():
    logits, kept = np.arange(12, dtype=np.float16).reshape(4, 3), []
    evaluate(lambda images: images, [(logits, np.array([0, -1, 2, -1]))] * 2, 3, Cluster(), kept=kept)
    found = Predictions.gathered(kept, np.array([0, 2, 4, 6]), Cluster())
    assert found.logits.dtype == np.float32
    assert found.logits.tolist() == 2 * [[0, 1, 2], [6, 7, 8]]
    assert (found.labels.tolist(), found.predicted.tolist()) == ([0, 2, 0, 2], [2, 2, 2, 2])


def details(drawn, **options) -> Details:
    logits, labels = drawn
    names = [f"kind {number}" for number in range(CLASSES)]
    return Details(Predictions(logits, labels, np.arange(3000)), names, "image {}".format, **options)


def test_entries_are_in_percent_and_json_can_hold_them(drawn):
    import json

    found = details(drawn, stored=2.0).added_to({"classes": [{"name": str(each)} for each in range(CLASSES)]})
    found = json.loads(json.dumps(found, allow_nan=False))
    logits, labels = drawn
    predicted = logits.argmax(1)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = sklearn_metrics.balanced_accuracy_score(labels, predicted)
    assert found["balanced_accuracy"] == pytest.approx(100 * balanced)
    assert found["classes"][5] == {"name": "5", "precision": 0, "recall": None, "f1": 0}
    assert found["classes"][4]["precision"] is None
    assert np.array(found["confusion_matrix"]).sum() == 3000
    assert {name: entry["temperature"] for name, entry in found["calibration"].items()} == {
        "plain": 1,
        "fitted": metrics.fit_temperature(*drawn),
        "checkpoint": 2,
    }
    assert found["calibration"]["plain"]["ece"] == 100 * metrics.calibration(*drawn).ece
    assert found["calibration"]["plain"]["bins"][-1]["high"] == 100
    mistakes = found["most_confident_mistakes"]
    assert len(mistakes) == 20
    assert [row["score"] for row in mistakes] == sorted((row["score"] for row in mistakes), reverse=True)
    row = int(mistakes[0]["file"].split()[1])
    assert mistakes[0]["true"] == f"kind {labels[row]}" != mistakes[0]["predicted"] == f"kind {predicted[row]}"
    assert mistakes[0]["score"] == pytest.approx(probabilities(logits[row : row + 1], 2.0).max())


def test_of_many_classes_only_the_largest_confusions_are_told(drawn, monkeypatch):
    monkeypatch.setattr(details_module, "MOST_CLASSES", CLASSES - 1)
    found = details(drawn).added_to({"classes": []})
    assert found["confusion_matrix"] is None
    whole = metrics.confusion_matrix(drawn[1], drawn[0].argmax(1), CLASSES)
    np.fill_diagonal(whole, 0)
    true, taken_for, count = found["largest_confusions"][0]
    assert count == whole.max() == whole[int(true[-1]), int(taken_for[-1])]


def test_a_temperature_at_the_end_of_the_search_is_none(drawn):
    logits, labels = drawn
    assert details(drawn).temperature_found
    assert not details((logits, logits.argmax(1))).temperature_found
