"""``mindeit probe``: what features know, and labels that look wrong. The features are the digits' own pixels."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mindeit.cli import main as console
from mindeit.errors import UserError
from mindeit.predict.feature_table import FeatureTable
from mindeit.predict.probe import probe, suspects


def called(capsys, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        console.main(["probe", *map(str, words)])
    return (ended.value.code, *capsys.readouterr())


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    return load_digits(return_X_y=True)


def saved(path, **columns):
    np.savez(path, **columns)
    return path


def flipped(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """3 % of the labels are wrong, and which."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(labels), round(0.03 * len(labels)), replace=False)
    labels = labels.copy()
    labels[rows] = (labels[rows] + rng.integers(1, 10, len(rows))) % 10
    return labels, rows


def test_most_of_the_surest_suspects_are_wrong_labels(digits, tmp_path):
    pixels, truth = digits
    for seed in range(3):
        labels, wrong = flipped(truth, seed)
        found = suspects(FeatureTable.read(saved(tmp_path / "digits.npz", features=pixels, labels=labels)))
        first = [int(suspect.file) for suspect in found[: len(wrong)]]
        assert len(wrong) == 54
        assert np.isin(first, wrong).mean() >= 0.9  # measured: 92.6, 92.6 and 94.4 %
        assert len(set(wrong.tolist()) & {int(suspect.file) for suspect in found}) == 54
        right = [int(suspect.suggested) == truth[int(suspect.file)] for suspect in found if int(suspect.file) in wrong]
        assert np.mean(right) > 0.95


def test_shares_are_those_of_scikit_learn(digits, tmp_path):
    pixels, labels = (part[:600] for part in digits)
    found = probe(FeatureTable.read(saved(tmp_path / "digits.npz", features=pixels, labels=labels)), seed=3)
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    for k, share in found.neighbours.items():
        judge = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
        assert share == pytest.approx(cross_val_score(judge, pixels, labels, cv=folds).mean(), abs=2 / 600)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    assert found.linear == pytest.approx(cross_val_score(linear, pixels, labels, cv=folds).mean(), abs=2 / 600)
    assert found.how == "5-fold cross-validation on 600 images"


def test_features_to_learn_from_are_another_file_or_the_part_train(digits, capsys, tmp_path):
    pixels, labels = (part[:900] for part in digits)
    train = saved(tmp_path / "train.npz", features=pixels[:600], labels=labels[:600])
    test = saved(tmp_path / "test.npz", features=pixels[600:], labels=labels[600:])
    parts = np.repeat(["train", "val"], [600, 300])
    both = saved(tmp_path / "both.npz", features=pixels, labels=labels, parts=parts)
    code, out, _ = called(capsys, test, "--train", train)
    assert code == 0
    assert out.splitlines()[0] == "learnt from 600 images, measured on 300"
    judge = KNeighborsClassifier(5, metric="cosine", algorithm="brute").fit(pixels[:600], labels[:600])
    assert out.splitlines()[2] == f"k-NN 5    {judge.score(pixels[600:], labels[600:]):7.2%}"
    assert called(capsys, both)[1].splitlines()[:5] == out.splitlines()[:5]


def test_the_csv_lists_suspects_the_surest_first(digits, capsys, tmp_path):
    pixels, truth = (part[:500] for part in digits)
    labels, wrong = flipped(truth, 0)
    files = [f"scans/{number}.png" for number in range(500)]
    names = [f"digit {number}" for number in range(10)]
    table = saved(tmp_path / "digits.npz", features=pixels, labels=labels, files=files, class_names=names)
    code, out, _ = called(capsys, table, "--output", tmp_path / "suspects.csv")
    with open(tmp_path / "suspects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert code == 0
    assert list(rows[0]) == ["file", "label", "suggested", "confidence"]
    confidences = [float(row["confidence"]) for row in rows]
    assert confidences == sorted(confidences, reverse=True) and confidences[-1] > 0
    for row in rows:
        assert row["label"] == names[labels[files.index(row["file"])]] != row["suggested"]
    assert len(set(wrong.tolist()) & {files.index(row["file"]) for row in rows}) >= len(wrong) - 1
    assert f"suspects  {len(rows)} of 500 labels, which their neighbours contradict" in out


def test_a_small_class_is_not_suspected_for_its_size():
    """Three of one class, far from thirty of another: among ten neighbours of each, eight are of the other class."""
    rng = np.random.default_rng(0)
    angles = np.concatenate([rng.normal(0, 0.1, 30), rng.normal(1, 0.01, 3)])
    table = FeatureTable(
        np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32),
        np.arange(33).astype(str),
        np.full(33, "all"),
        np.repeat([0, 1], [30, 3]).astype(np.int32),
        ("many", "few"),
    )
    assert suspects(table) == []


MISTAKES = [
    ({"labels": [0, 1]}, "{} holds labels; expected features, as mindeit embed writes"),
    ({"features": np.zeros(3)}, "{}: features are float64 (3,); expected numbers (images, dim)"),
    ({"features": np.full((2, 2), np.nan)}, "{}: features hold values that are not finite"),
    ({"features": np.ones((3, 2)), "labels": [0, 1]}, "{}: labels are (2,), but there are 3 features"),
    ({"features": np.ones((2, 2)), "labels": [0.5, 1]}, "{}: labels are no whole numbers below 2"),
    ({"features": np.ones((2, 2)), "labels": [0, 2], "class_names": ["a"]}, "{}: labels are no whole numbers below 1"),
    ({"features": np.ones((2, 2))}, "there are no labels; embed a folder with a folder for each class"),
    ({"features": np.ones((3, 2)), "labels": [0, 0, 1]}, "class '1' has one image; allowed: 2 and more, or --train"),
    ({"features": np.ones((4, 2)), "labels": [0] * 4}, "all images are of one class; a classifier needs two and more"),
    ({"features": np.array([{}])}, "{} is not an .npz of arrays: Object arrays cannot be loaded"),
]


@pytest.mark.parametrize(("columns", "message"), MISTAKES)
def test_what_a_file_lacks_is_told_in_a_line(columns, message, capsys, tmp_path):
    path = saved(tmp_path / "features.npz", **columns)
    code, _, err = called(capsys, path)
    assert code == 2
    assert err.startswith(f"error: {message.format(path)}")
    assert len(err.splitlines()) == 1


def test_other_mistakes_are_told_in_a_line(capsys, tmp_path):
    good = saved(tmp_path / "a.npz", features=np.eye(4), labels=[0, 0, 1, 1])
    wide = saved(tmp_path / "b.npz", features=np.eye(5), labels=[0, 0, 1, 1, 1])
    more = saved(tmp_path / "c.npz", features=np.eye(4), labels=[0, 0, 1, 2])
    (tmp_path / "text.npz").write_text("no archive")
    for words, message in (
        ((good, "--train", wide), "there are 4 features, and 5 to learn from; they have to come from one model"),
        ((good, "--train", more), "the classes are not those to learn from: 2"),
        ((good, "--output", good), f"command line: --output is {good}, which is read; allowed: another name"),
        ((tmp_path / "none.npz",), f"{tmp_path}/none.npz: no such file"),
        ((tmp_path / "text.npz",), f"{tmp_path}/text.npz is not an .npz of arrays: "),
        ((tmp_path / "a.csv",), f"{tmp_path}/a.csv ends in '.csv'; allowed: .npz, .parquet"),
    ):
        code, _, err = called(capsys, *words)
        assert code == 2
        assert err.startswith(f"error: {message}")


def test_parts_without_labels_are_refused():
    table = FeatureTable(np.eye(2, dtype=np.float32), np.array(["a", "b"]), np.array(["all"] * 2), np.full(2, -1), ())
    with pytest.raises(UserError, match="there are no labels"):
        suspects(table)
