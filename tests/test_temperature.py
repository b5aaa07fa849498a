"""The temperature that validate.py fits, stored in a checkpoint's card, and scores by it."""

from __future__ import annotations

import json
from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
import torch
from test_run_checkpoints import same_bits, state_at
from test_validate import run_main

from mindeit.errors import UserError
from mindeit.export.metadata import Description
from mindeit.training import run_checkpoints
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.card import ModelCard
from mindeit.weights.load import load_weights

STATE = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([0.1, np.nan], np.float16)}
CARD = ModelCard("deit_tiny_patch16_224", 2, 224, 0.875, class_names=("Käse", "猫"))


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_another_card_leaves_the_weights_as_they_are(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    checkpoints.write(path, STATE, CARD)
    for temperature in (1.25, 0.5, None):
        card = replace(CARD, temperature=temperature)
        checkpoints.write_card(path, card)
        assert checkpoints.read_card(path) == card
        state, found = checkpoints.read(path)  # compares the digests
        assert found == card
        assert same_bits(state, STATE)
    assert list(tmp_path.iterdir()) == [path]


def test_a_card_taken_back_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "model.ckpt"
    checkpoints.write(path, STATE, CARD)
    before = path.read_bytes()
    for card in (replace(CARD, temperature=1.5), CARD):
        checkpoints.write_card(path, card)
    assert path.read_bytes() == before


def test_mindspore_reads_what_was_given_another_card(tmp_path):
    checkpoints.write(tmp_path / "model.ckpt", STATE, CARD)
    checkpoints.write_card(tmp_path / "model.ckpt", replace(CARD, temperature=2.0))
    loaded = ms.load_checkpoint(str(tmp_path / "model.ckpt"), crc_check=True)
    assert same_bits({name: loaded[name].asnumpy() for name in STATE}, STATE)


def test_a_damaged_file_gets_no_card(tmp_path):
    path = tmp_path / "model.ckpt"
    checkpoints.write(path, STATE, CARD)
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="the file is damaged"):
        checkpoints.write_card(path, CARD)
    assert path.read_bytes() == content


def test_a_training_checkpoint_keeps_everything_and_its_temperature_is_of_the_weights_in_use(tmp_path):
    for name, use in (("best", "model"), ("best_ema", "ema")):
        path, state = tmp_path / f"{name}.ckpt", state_at(8, use=use)
        run_checkpoints.save(path, state)
        card = replace(state.card, temperature=1.5)
        checkpoints.write_card(path, card)
        back = run_checkpoints.load(path)
        assert (back.card, dict(back.record)["step"]) == (card, 8)
        assert all(map(same_bits, (back.model, back.ema, back.optimizer), (state.model, state.ema, state.optimizer)))
        assert checkpoints.read(path)[1].temperature == 1.5
        assert checkpoints.read(path, use_ema=True)[1].temperature == (1.5 if use == "ema" else None)
        run_checkpoints.save(path, back)  # training goes on, with other weights
        assert checkpoints.read_card(path).temperature is None


def test_a_card_without_a_temperature_is_what_earlier_versions_wrote():
    assert "temperature" not in CARD.to_json()
    assert ModelCard.from_json(replace(CARD, temperature=3).to_json()).temperature == 3
    with pytest.raises(UserError, match="temperature is 0, allowed: a number, above 0 or null"):
        ModelCard.from_json('{"temperature": 0, ' + CARD.to_json()[1:])


def test_an_exported_file_says_it():
    description = Description(replace(CARD, temperature=1.75))
    assert Description.of(description.as_texts(), "x.onnx") == description
    assert Description.of(json.loads(json.dumps(description.as_dict())), "x.json") == description
    assert "temperature" not in Description(CARD).as_texts()


@pytest.fixture
def calibrated(checkpoint, tmp_path):
    """A copy of the checkpoint with temperature 4."""
    state, card = checkpoints.read(checkpoint)
    checkpoints.write(tmp_path / "calibrated.ckpt", state, replace(card, temperature=4.0))
    return tmp_path / "calibrated.ckpt"


def test_another_head_has_no_temperature(calibrated):
    assert load_weights(calibrated)[1].temperature == 4
    assert load_weights(calibrated, num_classes=3)[1].temperature is None


def test_scores_are_by_the_temperature_and_their_order_stays(predictor, monkeypatch):
    logits = np.random.default_rng(0).normal(0, 3, 10).astype(np.float32)
    plain = predictor.best(logits, 10)
    monkeypatch.setattr(predictor, "temperature", 2.5)
    guesses = predictor.best(logits, 10)
    assert [guess.label for guess in guesses] == [guess.label for guess in plain]
    wanted = torch.softmax(torch.from_numpy(logits).double() / 2.5, 0)
    assert [guess.score for guess in guesses] == pytest.approx([wanted[guess.label].item() for guess in guesses])


def test_predict_says_by_which_temperature(calibrated, checkpoint, digits, monkeypatch, capsys):
    image = str(next(digits.glob("val/*/*.png")))
    shown = {}
    for path, words in ((calibrated, []), (calibrated, ["--calibrated", "False"]), (checkpoint, [])):
        out = calibrated.parent / "out.json"
        words = ["--ckpt_path", str(path), image, "--mode", "1", "--output", str(out), *words]
        assert run_main("predict.py", words, monkeypatch) == 0
        shown[tuple(words[1::6])] = (capsys.readouterr().out.splitlines(), json.loads(out.read_text()))
    (lines, [by_four]), plain, uncalibrated = shown.values()
    assert plain == uncalibrated
    assert lines[0] == "scores are calibrated, by temperature 4"
    assert by_four["temperature"] == 4
    assert "temperature" not in plain[1][0]
    first, second = (guess["score"] for guess in by_four["predictions"][:2])
    other = plain[1][0]["predictions"]
    assert first / second == pytest.approx((other[0]["score"] / other[1]["score"]) ** 0.25)


@pytest.fixture
def drawn(predictor, digits, tmp_path):
    """The digits once more, with labels drawn by the model's own scores at temperature 3; and these labels' NLL."""
    rng, paths = np.random.default_rng(0), sorted(digits.glob("val/*/*.png"))
    logits = predictor.logits(np.stack([predictor.pixels(path) for path in paths])).astype(np.float64)
    labels = [rng.choice(10, p=torch.softmax(torch.from_numpy(row) / 3, 0).numpy()) for row in logits]
    for path, label in zip(paths, labels):
        place = tmp_path / "drawn" / "val" / str(label) / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    logits, labels = torch.from_numpy(logits), torch.tensor(labels)
    return tmp_path / "drawn", lambda temperature: torch.nn.functional.cross_entropy(logits / temperature, labels)


def test_validate_writes_the_best_temperature_into_the_checkpoint(checkpoint, drawn, tmp_path, monkeypatch, capsys):
    folder, nll = drawn
    path = tmp_path / "model.ckpt"
    path.write_bytes(checkpoint.read_bytes())
    words = ["--data_dir", str(folder), "--ckpt_path", str(path), "--mode", "1", "--batch_size", "30"]
    assert run_main("validate.py", [*words, "--write_temperature", "True"], monkeypatch) == 0
    out, err = capsys.readouterr()
    (weights, card), (before, plain) = checkpoints.read(path), checkpoints.read(checkpoint)
    assert err.splitlines()[-1] == f"wrote temperature {card.temperature:.4g} into {path}"
    assert f" % at temperature {card.temperature:.3g}), macro F1 " in out.splitlines()[-2]
    assert same_bits(weights, before)
    assert card == replace(plain, temperature=card.temperature)
    tried = np.exp(np.linspace(0, np.log(10), 1001))
    assert card.temperature == pytest.approx(tried[np.argmin([nll(each) for each in tried])], rel=3e-3)
    assert run_main("validate.py", [*words, "--output", str(tmp_path / "r.json")], monkeypatch) == 0
    found = json.loads((tmp_path / "r.json").read_text())["calibration"]
    assert found["checkpoint"]["temperature"] == card.temperature
    assert found["checkpoint"]["nll"] == pytest.approx(found["fitted"]["nll"], rel=1e-6)
    assert found["fitted"]["nll"] < found["plain"]["nll"]


def test_what_cannot_hold_a_temperature_is_told_before_any_work(tmp_path, monkeypatch, capsys):
    def refused(path, *words: str) -> str:
        words = ["--data_dir", "/nope", "--ckpt_path", str(path), "--write_temperature", "True", *words]
        assert run_main("validate.py", words, monkeypatch) == 2
        return capsys.readouterr().err

    checkpoints.write(tmp_path / "bare.ckpt", STATE)
    (tmp_path / "official.pth").write_bytes(b"x")
    (tmp_path / "model.onnx").write_bytes(b"x")
    for name in ("bare.ckpt", "official.pth", "model.onnx"):
        assert refused(tmp_path / name) == (
            f"error: {tmp_path / name}: --write_temperature is for this project's checkpoints (.ckpt, .safetensors); "
            "convert official weights first (convert_pt2ms.py), and export afterwards (export.py)\n"
        )
    assert refused(tmp_path / "none.ckpt") == f"error: {tmp_path / 'none.ckpt'}: no such file\n"
    run_checkpoints.save(tmp_path / "last.ckpt", state_at(1))
    assert refused(tmp_path / "last.ckpt", "--use_ema", "True") == (
        f"error: {tmp_path / 'last.ckpt'}: --write_temperature is for the weights that are used by default; leave out "
        "use_ema\n"
    )


def test_a_file_is_left_alone_where_no_temperature_fits(checkpoint, digits, tmp_path, monkeypatch, capsys):
    path = tmp_path / "model.ckpt"
    path.write_bytes(checkpoint.read_bytes())
    words = ["--data_dir", str(digits), "--ckpt_path", str(path), "--mode", "1", "--write_temperature", "True"]
    assert run_main("validate.py", words, monkeypatch) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {path}: no temperature was written, for 20 is the end of the search: nearly every image is right, or "
        "hardly any; validate on more images"
    )
    assert path.read_bytes() == checkpoint.read_bytes()


def test_asking_for_a_temperature_that_is_not_there_is_one_line(checkpoint, digits, monkeypatch, capsys):
    words = ["--ckpt_path", str(checkpoint), str(next(digits.glob("val/*/*.png"))), "--calibrated", "True"]
    assert run_main("predict.py", words, monkeypatch) == 2
    assert capsys.readouterr().err == (
        "error: command line: --calibrated is True, but the file holds no temperature; validate.py --write_temperature "
        "True stores one\n"
    )
