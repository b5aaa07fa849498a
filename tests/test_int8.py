"""export.py --precision int8: a file that knows as many held-out images as the float32 one, or none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import pytest
from exported_files import DEIT, REGNET, export, write_checkpoint
from mindspore import Tensor
from test_validate import run_main
from training_runs import one_block

from mindeit import load_model
from mindeit.data import EvalTransform, open_source
from mindeit.export import int8
from mindeit.export.exported import Exported
from mindeit.runtime.device import operator_by_operator
from mindeit.weights import checkpoint as checkpoints

INT8 = ("--precision", "int8")


def learnt(folder, name):
    """Random weights, large enough for features that differ, under a head that was fitted to 400 digits."""
    path = write_checkpoint(folder, name, class_names=tuple("0123456789"))
    state, card = checkpoints.read(path)
    state = {
        key: 5 * values if "attn" in key or "mlp" in key or "embed" in key else values for key, values in state.items()
    }
    checkpoints.write(path, state, card)
    model, _ = load_model(path)
    source = open_source("digits", None, "train")
    transform = EvalTransform(32, card.crop_pct, card.mean, card.std, card.interpolation)
    images = np.stack([transform(source.read(index)) for index in range(400)])
    with operator_by_operator():
        model.set_train(False)
        features = model.forward_head(model.forward_features(Tensor(images)), pre_logits=True).asnumpy()
    middle = features.mean(0)
    known, wanted = (features - middle).astype(np.float64), np.eye(10)[source.labels[:400]] - 0.1
    weight = np.linalg.solve(known.T @ known + 10 * np.eye(known.shape[1]), known.T @ wanted)
    for head in {key.rpartition(".")[0] for key in state if key.startswith("head")}:
        state[f"{head}.weight"], state[f"{head}.bias"] = (
            values.astype(np.float32) for values in (weight.T, 0.1 - middle @ weight)
        )
    checkpoints.write(path, state, card)
    return path


@pytest.fixture(scope="module", autouse=True)
def shallow_model():
    with one_block(DEIT):
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, shallow_model):
    return learnt(tmp_path_factory.mktemp("made"), DEIT)


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory):
    """(file, what the script printed): dynamic, checked with the embedded digits."""
    import io
    from contextlib import redirect_stdout

    target, shown = tmp_path_factory.mktemp("int8") / "a.onnx", io.StringIO()
    with pytest.MonkeyPatch.context() as monkeypatch, redirect_stdout(shown):
        words = (*INT8, "--dataset", "digits", "--outputs", "logits,attention", "--tolerance", "2")
        assert export(monkeypatch, checkpoint, target, *words) == 0
    return target, shown.getvalue().splitlines()


def told(path) -> dict:
    return json.loads({entry.key: entry.value for entry in onnx.load(path).metadata_props}["int8"])


def test_the_file_is_small_and_says_what_was_measured(made, checkpoint):
    target, shown = made
    said = told(target)
    assert target.stat().st_size < 0.4 * checkpoint.stat().st_size
    assert said["activations"] == "dynamic"
    assert said["images"] == 360
    assert 60 < said["float32_accuracy"] <= 100
    assert abs(said["float32_accuracy"] - said["int8_accuracy"]) <= 2
    assert shown[-3].startswith(f"float32: {said['float32_accuracy']:.2f} % of 360 images right, ")
    assert shown[-2].startswith(f"int8:    {said['int8_accuracy']:.2f} % of 360 images right, ")
    assert shown[-1].startswith(f"wrote {target}: {DEIT}, {target.stat().st_size / 1e6:.1f} MB, images: float32")
    assert list(target.parent.iterdir()) == [target]


def test_products_with_weights_are_in_eight_bits_and_nothing_else(made):
    kinds = Counter(node.op_type for node in onnx.load(made[0]).graph.node)
    assert kinds["MatMulInteger"] == 7  # patches, qkv, proj, fc1, fc2, two heads
    assert kinds["Gemm"] == 0
    assert kinds["LayerNormalization"] == 3
    assert kinds["Softmax"] == kinds["Gelu"] == 1
    levels = [onnx.numpy_helper.to_array(each) for each in onnx.load(made[0]).graph.initializer if each.data_type == 3]
    assert max(int(np.abs(values.astype(int)).max()) for values in levels) <= 64  # seven bits


def test_other_scripts_read_it_as_any_file(made, digits, tmp_path, monkeypatch, capsys):
    target, _ = made
    file = Exported(target)  # the digest holds
    assert file.description.precision == "int8"
    assert file.description.outputs == ("logits", "attention", "attention_heads")
    assert run_main("validate.py", ["--ckpt_path", str(target), "--dataset", "digits"], monkeypatch) == 0
    found = float(re.search(r"Acc@1 ([\d.]+)", capsys.readouterr().out).group(1))
    assert found == pytest.approx(told(target)["int8_accuracy"], abs=1)  # ranges are found anew in each batch
    image = next((digits / "val" / "3").iterdir())
    assert run_main("predict.py", ["--ckpt_path", str(target), str(image)], monkeypatch) == 0
    assert "%" in capsys.readouterr().out


@pytest.mark.parametrize("batch", ["dynamic", "3"])
def test_calibrated_files_have_fixed_ranges(batch, checkpoint, digits, tmp_path, monkeypatch):
    target = tmp_path / "a.onnx"
    words = [*INT8, "--calibrate", str(digits / "val"), "--data_dir", str(digits), "--tolerance", "5"]
    assert export(monkeypatch, checkpoint, target, *words, "--preprocess", "--batch", batch) == 0
    kinds = Counter(node.op_type for node in onnx.load(target).graph.node)
    assert kinds["MatMulInteger"] == 0
    assert kinds["QuantizeLinear"] > 5
    said = told(target)
    assert (said["activations"], said["images"]) == ("static", 60)
    assert Exported(target)(np.zeros((4, 3, 32, 32), np.float32)).shape == (4, 10)


def test_a_file_that_knows_less_is_not_kept(checkpoint, tmp_path, monkeypatch, capsys):
    own = int8.quantize

    def spoilt(source, target, batches):
        how, model = own(source, target, batches), onnx.load(target)
        for weight in model.graph.initializer:
            if (
                weight.name.endswith("_quantized")
                and weight.name.startswith("head")
                and weight.data_type == onnx.TensorProto.INT8
            ):
                weight.raw_data = bytes(len(weight.raw_data))
        onnx.save(model, target)
        return how

    monkeypatch.setattr(int8, "quantize", spoilt)
    target = tmp_path / "a.onnx"
    assert export(monkeypatch, checkpoint, target, *INT8, "--dataset", "digits") == 1
    assert "int8:    " in (shown := capsys.readouterr()).out
    assert shown.err.splitlines()[-1].startswith(f"nothing was written to {target}: int8 loses ")
    assert shown.err.splitlines()[-1].endswith(
        "points of accuracy, more than the 0.5 of --tolerance; --calibrate FOLDER may keep more, and so does "
        "--precision fp16"
    )
    assert list(tmp_path.iterdir()) == []


def test_convolutions_are_for_calibrated_files(tmp_path, monkeypatch, capsys, digits):
    source, target = learnt(tmp_path, REGNET), tmp_path / "a.onnx"
    assert export(monkeypatch, source, target, *INT8, "--unchecked", "--batch", "1") == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: regnety_mini_32 holds 1 % of its weights in matrix products, the rest is of convolutions, which need "
        "--calibrate FOLDER of images for int8"
    )
    words = [*INT8, "--unchecked", "--batch", "1", "--calibrate", str(digits)]
    assert export(monkeypatch, source, target, *words) == 0
    assert "int8_accuracy" not in told(target)
    assert told(target)["images"] == 0


def test_quantization_needs_no_sympy():
    code = "import sys; sys.modules['sympy'] = None; import mindeit.export.int8"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


BAD_INPUT = [
    (
        INT8,
        "command line: --precision int8 needs one of --data_dir FOLDER (held-out images), --dataset digits and "
        "--unchecked, got none",
    ),
    (
        [*INT8, "--dataset", "digits", "--unchecked"],
        "command line: --precision int8 needs one of --data_dir FOLDER (held-out images), --dataset digits and "
        "--unchecked, got --dataset and --unchecked",
    ),
    (["--dataset", "digits"], "command line: --dataset has no effect without --precision int8"),
    (["--calibrate", "x"], "command line: --calibrate has no effect without --precision int8"),
    ([*INT8, "--unchecked", "--tolerance", "1"], "command line: --tolerance has no effect with --unchecked"),
    ([*INT8, "--unchecked", "--calibrate", "nowhere"], "no images in nowhere, with which --calibrate is to "),
    ([*INT8, "--data_dir", "nowhere"], "data_dir nowhere is not a folder"),
    (
        [*INT8, "--dataset", "digits", "--num_classes", "0"],
        "int8 is kept by its accuracy, and there are no logits; allowed: --unchecked",
    ),
]


@pytest.mark.parametrize(("words", "message"), BAD_INPUT, ids=[" ".join(words) for words, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_nothing_is_written(words, message, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert export(monkeypatch, checkpoint, tmp_path / "a.onnx", *words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {message}")
    assert shown.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_int8_is_for_onnx(checkpoint, tmp_path, monkeypatch, capsys):
    assert export(monkeypatch, checkpoint, tmp_path / "a.mindir", *INT8, "--unchecked") == 2
    message = "command line: --precision int8 is for --format ONNX, not MINDIR"
    assert capsys.readouterr().err == f"error: {message}\n"
