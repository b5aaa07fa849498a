"""Cards, records and sidecars: of the declared types, or one line says where, what and what is allowed."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from mindeit.errors import UserError
from mindeit.export.metadata import Description
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights import ckpt
from mindeit.weights.checkpoint import CARD_KEY, RECORD_KEY, ModelCard

CARD = ModelCard("deit_tiny_patch16_224", 2, 224, 0.875, class_names=("a", "b"), counters={"bn.n": 7})
STATE = {"w": np.ones(3, np.float32)}
RECORD = {"use": "model", "model": CARD.model, "num_classes": 2, "opt": "adamw", "epoch": 1, "batch": 0, "step": 7}
POSITIVE = "a number, above 0"

WRONG_CARDS = [
    ({"num_classes": "x"}, "num_classes is 'x', allowed: a whole number, at least 0"),
    ({"num_classes": True}, "num_classes is true, allowed: a whole number, at least 0"),
    ({"num_classes": -1}, "num_classes is -1, allowed: a whole number, at least 0"),
    ({"model": []}, "model is [], allowed: text"),
    ({"image_size": None}, "image_size is null, allowed: a whole number, at least 1"),
    ({"image_size": 0}, "image_size is 0, allowed: a whole number, at least 1"),
    ({"crop_pct": float("nan")}, "crop_pct is NaN, allowed: a number, above 0 and at most 1"),
    ({"mean": [0.5, 0.5]}, "mean is [0.5, 0.5], allowed: a list of 3 values, each a number"),
    ({"std": [0, 0, 0]}, f"std[0] is 0, allowed: {POSITIVE}"),
    ({"std": [1, 10**400, 1]}, f"std[1] is 1{'0' * 59}..., allowed: {POSITIVE}"),
    ({"class_names": ["a", 3]}, "class_names[1] is 3, allowed: text"),
    ({"class_names": "ab"}, "class_names is 'ab', allowed: a list of any number of values, each text or null"),
    ({"class_names": ["a"]}, "class_names holds 1 names, allowed: 2 (num_classes)"),
    ({"counters": {"bn.n": "7"}}, "counters.bn.n is '7', allowed: a whole number"),
    (
        {"num_clases": 3},
        "holds 'num_clases' (nearest: 'num_classes'), which this version does not know; allowed: "
        + ", ".join(asdict(CARD)),
    ),
]


def written(path, text: str, record: object = None):
    """A sound file that holds this card, and this record in front."""
    first = {} if record is None else {RECORD_KEY: np.frombuffer(record.encode(), np.uint8)}
    ckpt.write(path, {**first, **STATE}, {CARD_KEY: text})
    return path


def message(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("changes", "words"), WRONG_CARDS, ids=range(len(WRONG_CARDS)))
def test_a_card_of_other_types_is_one_line(changes, words, tmp_path):
    path = written(tmp_path / "a.ckpt", json.dumps({**asdict(CARD), **changes}))
    assert message(checkpoints.read, path) == f"{path}, model card: {words}"


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "is [], allowed: an object with model, num_classes, "),
        ("3", "is 3, allowed: an object with model"),
        ('{"model": "x"}', "lacks num_classes, image_size, crop_pct"),
        ("{", "is not readable as JSON (Expecting property name enclosed in double quotes): '{'"),
        (DEEP, "is not readable as JSON (nested too deep)"),
    ],
    ids=["list", "number", "lacking", "cut", "deep"],
)
def test_a_card_that_is_no_card_is_one_line(text, words, tmp_path):
    path = written(tmp_path / "a.ckpt", text)
    assert message(checkpoints.read, path).startswith(f"{path}, model card: {words}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "is [], allowed: an object with use, "),
        (DEEP, "is not readable as JSON (nested too deep)"),
        (json.dumps({**RECORD, "epoch": "1"}), "epoch is '1', allowed: a whole number, at least 0"),
        (json.dumps({**RECORD, "use": "teacher"}), "use is 'teacher', allowed: model or ema"),
        (json.dumps({**RECORD, "places": 3}), "places is 3, allowed: a list of any number of values, each text"),
        (json.dumps({"use": "ema"}), "lacks model, num_classes, opt, epoch, batch, step"),
    ],
    ids=["list", "deep", "epoch", "use", "places", "lacking"],
)
def test_a_record_of_other_types_is_one_line(text, words, tmp_path):
    path = written(tmp_path / "last.ckpt", CARD.to_json(), record=text)
    for reader in (checkpoints.read, checkpoints.read_record):
        assert message(reader, path).startswith(f"{path}, training record: {words}")


def test_a_run_folder_passes_over_a_record_that_is_not_readable(tmp_path, capsys):
    from mindeit.training.run_checkpoints import newest_sound

    good = written(tmp_path / "epoch-0001.ckpt", CARD.to_json(), record=json.dumps(RECORD))
    bad = written(tmp_path / "last.ckpt", CARD.to_json(), record=DEEP)
    assert newest_sound(tmp_path) == good
    assert f"{bad}, training record: is not readable as JSON (nested too deep)" in capsys.readouterr().err


SIDECARS = [
    ({"batch": 0}, "batch is 0, allowed: dynamic or a whole number, at least 1"),
    ({"batch": "many"}, "batch: is not readable as JSON (Expecting value): 'many'"),
    ({"preprocess": 1}, "preprocess is 1, allowed: true or false"),
    ({"heads": "three"}, "heads is 'three', allowed: mean or both"),
    ({"mean": None}, "mean is null, allowed: a list of 3 values, each a number"),
    ({"std": [0.1, 0.1, float("inf")]}, f"std[2] is Infinity, allowed: {POSITIVE}"),
    ({"class_names": DEEP}, "class_names: is not readable as JSON (nested too deep)"),
    ({"class_names": ["a"]}, "class_names holds 1 names, allowed: 2 (num_classes)"),
]


@pytest.mark.parametrize(("changes", "words"), SIDECARS, ids=range(len(SIDECARS)))
def test_a_description_of_other_types_is_one_line(changes, words):
    text = message(Description.of, {**Description(CARD).as_dict(), **changes}, "x.onnx")
    assert text.startswith(f"x.onnx: not what export.py writes: {words}")


def test_a_sidecar_that_is_not_utf8_or_too_deep_is_one_line(tmp_path):
    from mindeit.export.exported import Exported

    (tmp_path / "a.mindir").write_bytes(b"x")
    for content, reason in ((b"\xff\xfe", "not UTF-8"), (DEEP.encode(), "nested too deep")):
        (tmp_path / "a.mindir.json").write_bytes(content)
        assert f"a.mindir.json: is not readable as JSON ({reason})" in message(Exported, tmp_path / "a.mindir")
