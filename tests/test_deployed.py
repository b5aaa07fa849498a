"""validate.py and predict.py on exported files: the checkpoint's answers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from exported_files import DEIT, export, write_checkpoint
from PIL import Image
from test_validate import run_main
from training_runs import TIMINGS, one_block

import mindeit
from mindeit.runtime import device

FILES = {
    "any.onnx": [],
    "any.mindir": [],
    "seven.onnx": ["--batch", "7", "--preprocess", "--heads", "both"],
    "seven.mindir": ["--batch", "7", "--preprocess"],
}


@pytest.fixture(scope="module", autouse=True)
def shallow_model():
    with one_block(DEIT):
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, shallow_model):
    """Of digits by their names, and with a crop of its own."""
    return write_checkpoint(tmp_path_factory.mktemp("made"), DEIT, class_names=tuple("0123456789"), crop_pct=0.8)


@pytest.fixture(scope="module")
def files(checkpoint, tmp_path_factory):
    """The checkpoint in four exported forms."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, words in FILES.items():
            assert export(monkeypatch, checkpoint, folder / name, *words) == 0
    return folder


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8)).save(path)
    return path


def test_accuracy_is_the_checkpoints(checkpoint, digits, files, tmp_path, monkeypatch, capsys):
    """Sixty images in batches of sixteen: neither fills batches of seven."""
    results = {}
    for path in (checkpoint, *(files / name for name in FILES)):
        words = [
            "--data_dir",
            str(digits),
            "--ckpt_path",
            str(path),
            "--batch_size",
            "16",
            "--output",
            str(tmp_path / "r.json"),
        ]
        assert run_main("validate.py", words, monkeypatch) == 0
        results[path.name] = json.loads((tmp_path / "r.json").read_text())
    own = results.pop(checkpoint.name)
    assert 0 < own["acc1"] < 100
    assert len(results) == len(FILES)
    for result in results.values():
        for key in ("acc1", "acc5", "images", "classes", "model", "crop_pct"):
            assert result[key] == own[key]
        assert result["loss"] == pytest.approx(own["loss"], rel=1e-4)


@pytest.mark.parametrize("name", ["", "any.onnx", "seven.mindir"], ids=["checkpoint", "onnx", "mindir"])
def test_validation_is_the_same_where_the_device_normalises(name, checkpoint, digits, files, tmp_path, monkeypatch):
    """Models of the project take uint8 images there; an exported file what it was made for."""
    results, report = [], tmp_path / "r.json"
    words = ["--data_dir", str(digits), "--ckpt_path", str(files / name if name else checkpoint), "--mode", "1"]
    for normalises in (False, True):
        monkeypatch.setattr(device, "normalises", lambda answer=normalises: answer)
        assert run_main("validate.py", [*words, "--batch_size", "16", "--output", str(report)], monkeypatch) == 0
        results.append({key: value for key, value in json.loads(report.read_text()).items() if key not in TIMINGS})
    assert results[0] == results[1]


def test_predictions_are_the_checkpoints(checkpoint, files, image):
    own = mindeit.Predictor(checkpoint).predict(image)
    for name in FILES:
        guesses = mindeit.Predictor(files / name).predict(image)
        assert [(guess.label, guess.name) for guess in guesses] == [(guess.label, guess.name) for guess in own]
        assert [guess.score for guess in guesses] == pytest.approx([guess.score for guess in own], rel=1e-4)


def test_eight_threads_share_a_predictor_of_each_file(files, image):
    opened = [mindeit.Predictor(files / name) for name in FILES]
    wanted = [predictor.predict(image)[0].label for predictor in opened]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda predictor: predictor.predict(image)[0].label, opened * 16))
    assert found == wanted * 16


def test_the_script_takes_them(files, image, monkeypatch, capsys):
    for name in ("any.mindir", "any.onnx"):
        assert run_main("predict.py", ["--ckpt_path", str(files / name), str(image)], monkeypatch) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 12
    assert shown[:6] == shown[6:]


CONTRADICTIONS = [
    (
        "validate.py",
        "any.onnx",
        ["--image_size", "64"],
        "image_size is 64, but {path} was made for 32; leave it out, or export anew (export.py)",
    ),
    (
        "validate.py",
        "any.mindir",
        ["--num_classes", "7"],
        "num_classes is 7, but {path} was made for 10; leave it out, or export anew (export.py)",
    ),
    (
        "validate.py",
        "seven.onnx",
        ["--crop_pct", "1.0"],
        "crop_pct is 1.0, but {path} was made for 0.8; leave it out, or export anew (export.py)",
    ),
    (
        "validate.py",
        "any.onnx",
        ["--model", "deit_tiny_patch16_224"],
        "model is deit_tiny_patch16_224, but {path} "
        "was made for deit_mini_distilled_patch8_32; leave it out, or export anew (export.py)",
    ),
    (
        "validate.py",
        "any.onnx",
        ["--amp_level", "O2"],
        "amp_level is O2, but {path} has a precision already (export.py --precision); leave it out",
    ),
    (
        "validate.py",
        "any.onnx",
        ["--use_ema", "True"],
        "{path} holds one set of weights; use_ema is for training checkpoints",
    ),
    (
        "predict.py",
        "any.onnx",
        ["--attention", "maps"],
        "{path} gives logits only; attention is shown by a file of export.py --outputs logits,attention",
    ),
    ("predict.py", "nope.onnx", [], "{path}: no such file"),
]


@pytest.mark.parametrize(("script", "name", "words", "message"), CONTRADICTIONS)
def test_what_contradicts_the_file_is_one_line(
    script, name, words, message, files, digits, image, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    own = ["--data_dir", str(digits)] if script == "validate.py" else [str(image)]
    assert run_main(script, ["--ckpt_path", str(files / name), *own, *words], monkeypatch) == 2
    assert capsys.readouterr().err == f"error: {message.format(path=files / name)}\n"


def test_a_file_of_features_names_no_classes(checkpoint, tmp_path, image, monkeypatch, capsys):
    target = tmp_path / "features.onnx"
    assert export(monkeypatch, checkpoint, target, "--num_classes", "0", "--batch", "1") == 0
    capsys.readouterr()
    assert run_main("predict.py", ["--ckpt_path", str(target), str(image)], monkeypatch) == 2
    assert f"error: {target} gives features, no classes; ask for features(images)\n" == capsys.readouterr().err
    with Image.open(image) as image:
        assert mindeit.Predictor(target).features(image).shape == (128,)


@pytest.mark.parametrize(("classes", "names"), [(1000, None), (2, ("cat", "dog")), (3, None), (0, None)])
def test_a_description_survives_as_texts_and_as_json(classes, names):
    """ImageNet's names are written for whoever serves the file; read back, a nameless checkpoint is nameless."""
    from mindeit.export.metadata import Description
    from mindeit.models.registry import spec
    from mindeit.weights.card import card_for

    card = card_for(spec("deit_tiny_patch16_224"), classes, class_names=names)
    description = Description(card, batch=None if names else 4, precision="fp16", preprocess=True)
    texts = description.as_texts()
    assert len(json.loads(texts["class_names"])) == classes
    assert Description.of(texts, "x.onnx") == description
    assert Description.of(json.loads(json.dumps(description.as_dict())), "x.json") == description
