"""export.py --outputs: logits, features and attention from one file, each as the checkpoint gives it."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
import pytest
from exported_files import DEIT, REGNET, digits, export, write_checkpoint
from test_validate import run_main
from training_runs import one_block

import mindeit
from mindeit.errors import UserError
from mindeit.export.exported import Exported
from mindeit.export.metadata import Description
from mindeit.runtime import device

FAMILIES = ("cait_mini_patch8_32", "patchconvnet_mini_32", "deit_mini_patch8_32_LS")
ALL = ("--outputs", "attention,logits,features")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """DeiT with its two blocks: a rollout through one is the block itself."""
    folder = tmp_path_factory.mktemp("made")
    with one_block(*FAMILIES[:2]):
        yield {name: write_checkpoint(folder, name) for name in (DEIT, REGNET, "resmlp_mini_patch8_32", *FAMILIES)}


@pytest.fixture(scope="module")
def made(checkpoints, tmp_path_factory):
    """One file of DeiT with everything in it."""
    target = tmp_path_factory.mktemp("exported") / "all.onnx"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert export(monkeypatch, checkpoints[DEIT], target, *ALL) == 0
    return target


def pixels_of(predictor: mindeit.Predictor, count: int = 3) -> np.ndarray:
    from PIL import Image

    return np.stack([predictor.prepare(Image.fromarray(image)) for image in digits(count)])


def close(found: np.ndarray, wanted: np.ndarray, limit: float = 1e-4) -> bool:
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max()) < limit * float(wanted.std())


def check_maps(checkpoint, target) -> None:
    """Against NumPy's rollout of the weights that MindSpore computes operator by operator."""
    own, file = mindeit.Predictor(checkpoint), mindeit.Predictor(target)
    pixels = pixels_of(own)
    wanted = own.attention_maps(pixels, [0] * len(pixels))
    found = file.attention_maps(pixels, [0] * len(pixels))
    assert len(found) == len(wanted) == 3
    for maps, model in zip(found, wanted):
        assert maps.rollout.shape == maps.heads.shape[1:]
        assert close(maps.rollout, model.rollout)
        assert close(maps.heads, model.heads)


def test_one_file_gives_all_three_in_the_order_asked_for(checkpoints, made):
    session = onnxruntime.InferenceSession(str(made))
    shapes = {given.name: given.shape for given in session.get_outputs()}
    assert list(shapes) == ["attention", "attention_heads", "logits", "features"]
    assert shapes == {
        "attention": ["batch", 4, 4],
        "attention_heads": ["batch", 4, 4, 4],
        "logits": ["batch", 10],
        "features": ["batch", 128],
    }
    assert json.loads(session.get_modelmeta().custom_metadata_map["outputs"]) == list(shapes)
    check_maps(checkpoints[DEIT], made)
    own, file = mindeit.Predictor(checkpoints[DEIT]), mindeit.Predictor(made)
    pixels = pixels_of(own)
    with device.operator_by_operator():
        assert close(file.logits(pixels), own.model.set_train(False)(_tensor(pixels)).asnumpy())
        head = own.model.forward_head(own.model.forward_features(_tensor(pixels)), pre_logits=True)
        assert close(file.pooled(pixels), head.asnumpy())


def _tensor(pixels: np.ndarray):
    from mindspore import Tensor

    return Tensor(pixels)


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_of_each_family_is_the_checkpoints(name, checkpoints, tmp_path, monkeypatch):
    target = tmp_path / "a.onnx"
    assert export(monkeypatch, checkpoints[name], target, "--outputs", "attention", "--batch", "2") == 0
    assert Exported(target).description.outputs == ("attention", "attention_heads")
    check_maps(checkpoints[name], target)


def test_mind_ir_gives_them_too(checkpoints, tmp_path, monkeypatch):
    target = tmp_path / "a.mindir"
    words = ("--outputs", "logits,attention", "--heads", "both", "--preprocess", "--batch", "2", "--precision", "fp16")
    assert export(monkeypatch, checkpoints[DEIT], target, *words) == 0
    file = Exported(target)
    assert file.description.outputs == ("cls_logits", "dist_logits", "attention", "attention_heads")
    assert [found.shape for found in file.outputs(np.zeros((3, 3, 32, 32), np.float32))] == [
        (3, 10), (3, 10), (3, 4, 4), (3, 4, 4, 4)
    ]  # fmt: skip
    assert file(np.zeros((3, 3, 32, 32), np.float32)).shape == (3, 10)


def test_features_alone_are_what_no_classes_give(checkpoints, tmp_path, monkeypatch):
    for name, words in (("a.onnx", ["--outputs", "features"]), ("b.onnx", ["--num_classes", "0"])):
        assert export(monkeypatch, checkpoints[REGNET], tmp_path / name, *words, "--batch", "2") == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_predict_draws_the_attention_of_a_file(made, tmp_path, monkeypatch, capsys):
    from PIL import Image

    image = tmp_path / "bird.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8)).save(image)
    words = ["--ckpt_path", str(made), str(image), "--attention", str(tmp_path / "maps")]
    monkeypatch.setitem(sys.modules, "mindspore", None)  # an import of it fails
    assert run_main("predict.py", words, monkeypatch) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"  attention: {tmp_path / 'maps' / 'bird_attention.png'}"
    assert (tmp_path / "maps" / "bird_attention.png").stat().st_size > 10_000


def test_a_file_of_attention_names_no_classes(checkpoints, tmp_path, monkeypatch, capsys):
    from PIL import Image

    target, image = tmp_path / "a.onnx", tmp_path / "bird.png"
    Image.new("RGB", (40, 40)).save(image)
    assert export(monkeypatch, checkpoints[DEIT], target, "--outputs", "attention,features", "--batch", "1") == 0
    assert Exported(target).card.num_classes == 0
    capsys.readouterr()
    assert run_main("predict.py", ["--ckpt_path", str(target), str(image)], monkeypatch) == 2
    assert capsys.readouterr().err == f"error: {target} gives features, no classes; ask for features(images)\n"
    assert mindeit.Predictor(target).features(image).shape == (128,)


BAD_INPUT = [
    ([DEIT, "--outputs", "logit"], "command line: --outputs is '[logit]', allowed: logits, features or attention, "),
    ([DEIT, "--outputs", "logits,logits"], "command line: --outputs is logits,logits; allowed: each once"),
    (
        [DEIT, "--outputs", "features", "--num_classes", "0"],
        "command line: --num_classes 0 says --outputs features; give one of the two",
    ),
    (
        [DEIT, "--outputs", "attention", "--heads", "both"],
        "heads is both, which attention alone does not have; leave it out",
    ),
    (
        [REGNET, "--outputs", "logits,attention"],
        "regnety_mini_32 has no attention to show; allowed: --outputs logits, features or both",
    ),
    (
        ["resmlp_mini_patch8_32", "--outputs", "attention"],
        "resmlp_mini_patch8_32 has no attention to show; allowed: --outputs logits, features or both",
    ),
]


@pytest.mark.parametrize(("words", "message"), BAD_INPUT, ids=[" ".join(words) for words, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_nothing_is_written(words, message, checkpoints, tmp_path, monkeypatch, capsys):
    name, *options = words
    assert export(monkeypatch, checkpoints[name], tmp_path / "a.onnx", *options) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {message}")
    assert shown.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_token_for_each_class_has_no_attention_of_its_own(tmp_path):
    from zoo import shallow

    from mindeit.export import writer
    from mindeit.models.registry import spec
    from mindeit.weights.card import card_for

    model, card = shallow("S60_multi", num_classes=7, image_size=32), card_for(spec("S60_multi"), 7, 32, None)
    for asked, reason in (
        (("logits", "attention"), "and what is seen depends on which is asked"),
        (("logits", "features"), "no common features"),
    ):
        with pytest.raises(UserError, match=f"S60_multi has a token for each class, {reason}; allowed: --outputs log"):
            writer.export(model, Description(card, asked=asked), tmp_path / "multi.onnx", "ONNX")


def test_a_file_that_says_unknown_outputs_is_refused(made):
    texts = {**Exported(made).description.as_texts(), "outputs": '["logits", "mood"]'}
    with pytest.raises(UserError, match="x.onnx: not what export.py writes: outputs holds 'mood', allowed: logits"):
        Description.of(texts, "x.onnx")
