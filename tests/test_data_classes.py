"""A model, a resumed run and both splits speak of the same classes; a card tells evaluation how images are prepared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from training_runs import SMALL, STUDENT, script, write_images, write_model

import mindeit
from mindeit.config import parse
from mindeit.data import EvalTransform, Workers, number_as, open_source
from mindeit.data.images import Source
from mindeit.errors import UserError
from mindeit.factory import datasets
from mindeit.factory.datasets import held_out_batches
from mindeit.factory.student import build_student
from mindeit.factory.trained_model import trained_model
from mindeit.runtime.cluster import Cluster
from mindeit.weights.checkpoint import ModelCard, read, write
from mindeit.weights.load import load_to_train

__all__ = ["script"]


class Labelled(Source):
    def __init__(self, labels: list[int], names: str, *, named: bool = True):
        self.labels, self.class_names, self.named = np.array(labels, np.int32), tuple(names), named

    def where(self, index: int) -> str:
        return f"image {index}"


# ---------------------------------------------------------------- the rule
@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([0, 1, 2], "abc", [0, 1, 2]),
        ([0, 1], "ac", [0, 2]),  # a split may lack a class
        ([0, 1, 2], "cba", [2, 1, 0]),  # classes.txt in another order
    ],
)
def test_classes_with_names_are_found_by_name(labels, names, expected):
    source = Labelled(labels, names)
    number_as(source, 3, ("a", "b", "c"), where="val", other="train")
    assert source.labels.tolist() == expected and source.class_names == ("a", "b", "c")
    assert source.labels.dtype == np.int32


def test_numbers_without_names_mean_the_same_on_both_sides():
    for known in (None, ("a", "b", "c", "d")):
        source = Labelled([0, 2], "012", named=False)
        number_as(source, 4, known, where="val", other="the checkpoint")
        assert source.labels.tolist() == [0, 2] and source.class_names == (known or tuple("0123"))


@pytest.mark.parametrize(
    ("source", "count", "names", "message"),
    [
        (Labelled([0, 1], "ax"), 3, "abc", "val: class 'x' is none of the 3 classes of train"),
        (Labelled([0, 1], "ab"), 20, None, "val has 2 classes, train 20"),
        (Labelled([0, 3], "0123", named=False), 3, None, r"val: label 3 of image 1 is outside 0\.\.2"),
        (
            Labelled([0, 1], "aba"),
            3,
            "aab",
            "val and train: a class name stands for several classes, and the lists differ",
        ),
    ],
)
def test_classes_that_differ_are_one_line(source, count, names, message):
    with pytest.raises(UserError, match=message):
        number_as(source, count, names and tuple(names), where="val", other="train")


# ---------------------------------------------------------------- by one rule in all scripts
@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    write_images(folder / "images", train=12, val=4)
    numbered = folder / "numbered"
    numbered.mkdir()
    for index in range(4):
        Image.new("RGB", (8, 8), (40 * index, 0, 0)).save(numbered / f"{index}.png")
    (numbered / "labels.txt").write_text("0.png 0\n1.png 1\n2.png 0\n3.png 1\n")
    write_model(folder / "plain.ckpt", STUDENT, 3)
    state, card = read(folder / "plain.ckpt")
    write(folder / "bilinear.ckpt", state, replace(card, interpolation="bilinear", class_names=("a", "b", "c")))
    write(folder / "others.ckpt", state, replace(card, class_names=("cat", "dog", "owl")))
    return folder


def config(*words: object):
    return parse([str(word) for word in words], description="")


def student(place, *words: object, data: str = "images") -> ModelCard:
    made = config("--data_dir", place / data, "--val_while_train", False, *words)
    source, _ = datasets.sources(made, Cluster())
    return build_student(made, source)[1]


def test_num_classes_beside_named_classes_has_to_be_theirs(place):
    for split in ("--train_split", "--val_split"):
        with pytest.raises(UserError, match="images has 3 classes, num_classes 20"):
            datasets.sources(config("--data_dir", place / "images", "--num_classes", 20, split, "train"), Cluster())


def test_numbered_classes_train_and_validate_by_the_same_rule(place):
    words = ("--train_split", "x", "--model", STUDENT, "--num_classes", 5)
    card = student(place, *words, data="numbered")
    assert (card.num_classes, card.class_names) == (5, None)
    source = open_source("image_folder", str(place / "numbered"), "val")
    number_as(source, card.num_classes, card.class_names, where="numbered", other="the checkpoint")
    assert source.num_classes == 5 and source.labels.tolist() == [0, 1, 0, 1]


def test_a_head_of_other_classes_starts_anew_and_that_is_said(place):
    path = place / "others.ckpt"
    loaded = {names: load_to_train(path, class_names=names) for names in (None, ("cat", "dog", "owl"), ("a", "b", "c"))}
    kept, same, fresh = (model.head.weight.asnumpy() for model, _, _ in loaded.values())
    assert np.array_equal(kept, same) and not np.array_equal(kept, fresh)
    said = [changes for _, _, changes in loaded.values()]
    assert said == [[], [], ["the head starts anew for 3 classes (the weights have others)"]]
    assert student(place, "--ckpt_path", path).class_names == ("a", "b", "c")
    assert student(place, "--ckpt_path", place / "bilinear.ckpt").class_names == ("a", "b", "c")


def test_a_heading_is_said_once_by_the_first_rank(place, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    labels.write_text("filename,label\ntrain/a/00.png,a\n")
    words = ("--data_dir", place / "images", "--label_file", labels)
    for rank in range(2):
        datasets.sources(config(*words), Cluster(rank=rank, ranks=2))
    said = f"note: {labels}: the first line, 'filename label', is taken for a heading\n"
    assert capsys.readouterr().err == said


# ---------------------------------------------------------------- interpolation
@pytest.mark.parametrize(
    ("words", "expected"),
    [((), "bicubic"), (("--interpolation", "random"), "bicubic"), (("--interpolation", "bilinear"), "bilinear")],
)
def test_the_card_holds_the_interpolation_of_evaluation(place, words, expected):
    assert student(place, "--model", STUDENT, *words).interpolation == expected


def test_fine_tuning_goes_on_with_the_checkpoints_interpolation(place):
    made = config("--data_dir", place / "images", "--val_while_train", False, "--ckpt_path", place / "bilinear.ckpt")
    source, _ = datasets.sources(made, Cluster())
    card = build_student(made, source)[1]
    assert card.interpolation == "bilinear"
    assert datasets._transform(made, card)._resamples == (Image.Resampling.BILINEAR,)
    _, card = trained_model(made)
    batches = held_out_batches(made, source, card, Cluster(), Workers())
    expected = EvalTransform(32, card.crop_pct, interpolation="bilinear")(source.read(0))
    assert np.array_equal(next(iter(batches))[0][0], expected)
    assert np.array_equal(mindeit.transform_for(place / "bilinear.ckpt")(source.read(0)), expected)
    assert np.array_equal(mindeit.Predictor(place / "bilinear.ckpt").prepare(source.read(0)), expected)


def test_a_run_with_random_interpolation_evaluates(place, script):
    words = ("--data_dir", place / "images", "--batch_size", 4, "--interpolation", "random", "--mode", 1, "--dry_run")
    code, out, err = script("train", *SMALL, *words)
    assert code == 0, err
    assert "evaluation batch of 4 images" in out


def test_another_interpolation_than_the_cards_is_refused(place, script):
    code, _, err = script(
        "validate", "--data_dir", place / "images", "--ckpt_path", place / "bilinear.ckpt", "--interpolation", "bicubic"
    )
    assert code == 2
    assert err.startswith(f"error: interpolation is bicubic, but {place}/bilinear.ckpt was made for bilinear; leave it")
