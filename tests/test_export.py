"""export.py: files that give the model's answers, or none."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from exported_files import DEIT, REGNET, digits, export, write_checkpoint
from mindspore import Tensor, nn, ops
from test_validate import run_main
from training_runs import one_block
from zoo import shallow

from mindeit import ModelSpec, UserError, load_model
from mindeit.export import mind_ir, verify
from mindeit.export import writer as writer
from mindeit.export.exported import Exported, sidecar
from mindeit.export.metadata import Description
from mindeit.export.verify import normalised
from mindeit.models import registry
from mindeit.models.registry import spec
from mindeit.runtime.device import operator_by_operator
from mindeit.runtime.memory import machine_memory
from mindeit.weights import checkpoint
from mindeit.weights.card import card_for

ZOO = ("deit_mini_patch8_32_LS", "cait_mini_patch8_32", "resmlp_mini_patch8_32", "patchconvnet_mini_32")
LIMIT = {"fp32": 1e-4, "fp16": 3e-2}  # of the spread of the model's logits


@pytest.fixture(scope="module", autouse=True)
def shallow_models():
    with one_block(DEIT, *ZOO):
        yield


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, shallow_models):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: write_checkpoint(folder, name) for name in (DEIT, REGNET, *ZOO)}


class Made(NamedTuple):
    file: Path
    shown: list[str]  # by the script


@pytest.fixture(scope="module")
def made(checkpoints, tmp_path_factory) -> Callable[..., Made]:
    """Exported once for all tests that only read it: ``made(name, suffix, *words)``."""

    @cache
    def call(name: str, suffix: str, *words: str) -> Made:
        target, shown = tmp_path_factory.mktemp("made") / f"model.{suffix}", io.StringIO()
        with pytest.MonkeyPatch.context() as monkeypatch, redirect_stdout(shown):
            assert export(monkeypatch, checkpoints[name], target, *words) == 0
        return Made(target, shown.getvalue().splitlines())

    return call


@pytest.fixture(autouse=True)
def in_graph_mode(graph_mode):
    """As the scripts run."""


def model_logits(checkpoint, images: np.ndarray, **options) -> np.ndarray:
    """Operator by operator, which is sooner than compiling."""
    model, card = load_model(checkpoint, **options)
    with operator_by_operator():
        return model.set_train(False)(Tensor(normalised(images, card.mean, card.std))).asnumpy()


def gap(got: np.ndarray, wanted: np.ndarray) -> float:
    assert got.shape == wanted.shape
    assert got.dtype == np.float32
    return float(np.abs(got - wanted).max() / wanted.std())


# The journeys of test_resolution.py deploy a DeiT III and a CaiT as ONNX, too.
DEPLOYED = ("deit_mini_patch8_32_LS", "cait_mini_patch8_32")
FILES = [
    pytest.param(name, suffix, marks=pytest.mark.slow if name in DEPLOYED and suffix == "onnx" else ())
    for name in (DEIT, REGNET, *ZOO)
    for suffix in ("onnx", "mindir")
]


@pytest.mark.parametrize(("name", "suffix"), FILES)
def test_a_file_of_any_batch_gives_the_models_logits(name, suffix, checkpoints, made):
    images = digits(7)
    wanted = model_logits(checkpoints[name], images)
    target, shown = made(name, suffix)
    assert shown[-2].startswith("largest difference from the model: ")
    assert shown[-2].endswith("limit 1e-04: ok")
    assert shown[-1].startswith(f"wrote {target}: {name}, ")
    file = Exported(target)
    for count in (1, 5, 7):
        batch = normalised(images[:count], file.card.mean, file.card.std)
        assert gap(file(batch), wanted[:count]) < LIMIT["fp32"]


KINDS = {
    "one at a time": ["--batch", "1"],
    "four at a time": ["--batch", "4"],
    "half precision": ["--precision", "fp16"],
    "uint8 images": ["--preprocess"],
    "uint8 images, three at a time, half precision": ["--preprocess", "--batch", "3", "--precision", "fp16"],
}
# Of MindIR, three at a time is tested with both heads (below), seven of uint8 in test_deployed.py.
QUICK = (("one at a time", "onnx"), ("uint8 images, three at a time, half precision", "onnx"))
CASES = [
    pytest.param(kind, suffix, marks=() if (kind, suffix) in QUICK else pytest.mark.slow)
    for kind in KINDS
    for suffix in ("onnx", "mindir")
]


@pytest.mark.parametrize(("kind", "suffix"), CASES)
def test_every_kind_of_file_gives_the_models_logits(kind, suffix, checkpoints, made):
    images = digits(5)
    file = Exported(made(DEIT, suffix, *KINDS[kind]).file)
    got = file(normalised(images, file.card.mean, file.card.std))
    assert gap(got, model_logits(checkpoints[DEIT], images)) < LIMIT[file.description.precision]


def test_pieces_make_no_difference(made):
    file = Exported(made(REGNET, "onnx").file)
    images = normalised(digits(7), file.card.mean, file.card.std)
    (whole,) = file.outputs(images, at_once=7)
    for pieces in (1, 3, 100):
        assert gap(file.outputs(images, at_once=pieces)[0], whole) < 1e-5


@pytest.mark.parametrize("suffix", ["onnx", "mindir"])
def test_both_heads_are_the_models_two(suffix, checkpoints, tmp_path, monkeypatch):
    target, images = tmp_path / f"model.{suffix}", digits(3)
    assert export(monkeypatch, checkpoints[DEIT], target, "--heads", "both", "--batch", "3") == 0
    model, card = load_model(checkpoints[DEIT])
    batch = normalised(images, card.mean, card.std)
    wanted = model.set_train(True)(Tensor(batch))  # no dropout here: training differs by its two outputs alone
    file = Exported(target)
    assert file.description.outputs == ("cls_logits", "dist_logits")
    for got, want in zip(file.outputs(batch), wanted):
        assert gap(got, want.asnumpy()) < LIMIT["fp32"]
    assert gap(file(batch), (wanted[0] + wanted[1]).asnumpy() / 2) < LIMIT["fp32"]


@pytest.mark.parametrize("name", [DEIT, REGNET])
def test_without_classes_a_file_gives_features(name, checkpoints, tmp_path, monkeypatch):
    target, images = tmp_path / "model.onnx", digits(3)
    assert export(monkeypatch, checkpoints[name], target, "--num_classes", "0", "--batch", "3") == 0
    wanted = model_logits(checkpoints[name], images, num_classes=0)
    file = Exported(target)
    assert file.description.outputs == ("features",)
    assert wanted.shape == (3, 128 if name == DEIT else 192)
    assert gap(file(normalised(images, file.card.mean, file.card.std)), wanted) < LIMIT["fp32"]


def test_another_resolution_resizes_the_position_table(checkpoints, tmp_path, monkeypatch):
    target, images = tmp_path / "model.onnx", digits(2, 48)
    assert export(monkeypatch, checkpoints[DEIT], target, "--image_size", "48", "--batch", "2") == 0
    file = Exported(target)
    assert file.card.image_size == 48
    wanted = model_logits(checkpoints[DEIT], images, image_size=48)
    assert gap(file(normalised(images, file.card.mean, file.card.std)), wanted) < LIMIT["fp32"]


def test_an_onnx_file_is_valid_readable_and_describes_itself(checkpoints, tmp_path, monkeypatch):
    target = tmp_path / "model.onnx"
    assert export(monkeypatch, checkpoints[DEIT], target, "--preprocess") == 0
    model = onnx.load(target)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 20)]
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Gelu") == 1
    assert kinds.count("LayerNormalization") == 3
    assert "Erf" not in kinds
    assert len({node.name for node in model.graph.node}) == len(kinds)
    assert "blocks/0/attn/qkv/product/Gemm" in {node.name for node in model.graph.node}
    own, _ = load_model(checkpoints[DEIT])
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    for parameter in own.get_parameters():
        assert weights[parameter.name].tobytes() == parameter.asnumpy().tobytes()
    session = onnxruntime.InferenceSession(str(target))
    said = session.get_modelmeta().custom_metadata_map
    assert said["model"] == DEIT
    assert json.loads(said["class_names"]) == [f"kind {number}" for number in range(10)]
    assert json.loads(said["mean"]) == [0.4, 0.5, 0.6]
    assert json.loads(said["std"]) == [0.229, 0.224, 0.225]
    assert (said["image_size"], said["crop_pct"], said["num_classes"]) == ("32", "1.0", "10")
    assert (said["batch"], said["heads"], said["precision"], said["preprocess"]) == ("dynamic", "mean", "fp32", "true")
    assert said["interpolation"] == "bicubic"
    assert said["input"] == "images: uint8 (batch, 32, 32, 3), 0 to 255, RGB"
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(uint8)", ["batch", 32, 32, 3])
    assert (given.name, given.type, given.shape) == ("logits", "tensor(float)", ["batch", 10])


def test_a_mindir_file_has_its_description_beside_it(made):
    import mindspore as ms
    from mindspore import nn

    target = made(REGNET, "mindir", "--batch", "2").file
    assert sorted(path.name for path in target.parent.iterdir()) == ["model.mindir", "model.mindir.json"]
    said = json.loads(sidecar(target).read_text())
    assert (said["model"], said["batch"], said["outputs"]) == (REGNET, 2, ["logits"])
    assert said["class_names"][9] == "kind 9"
    graph = nn.GraphCell(ms.load(str(target)))
    assert graph(Tensor(np.zeros((2, 3, 32, 32), np.float32))).shape == (2, 10)


def test_a_half_precision_file_holds_halves(checkpoints, made):
    target = made(DEIT, "onnx", *KINDS["uint8 images, three at a time, half precision"]).file
    assert target.stat().st_size < 0.55 * checkpoints[DEIT].stat().st_size
    kinds = {each.name: each.data_type for each in onnx.load(target).graph.initializer}
    assert kinds["blocks.0.attn.qkv.weight"] == onnx.TensorProto.FLOAT16
    assert kinds["blocks.0.norm1.gamma"] == onnx.TensorProto.FLOAT


def test_an_official_file_is_exported_like_a_checkpoint(tmp_path, monkeypatch):
    from convert_weights import official_state, write_pth

    source = write_pth(tmp_path / "deit.pth", official_state(DEIT, 10, 32))
    assert export(monkeypatch, source, tmp_path / "deit.onnx", "--model", DEIT, "--batch", "2") == 0
    file, images = Exported(tmp_path / "deit.onnx"), digits(2)
    wanted = model_logits(source, images, model=DEIT)
    assert gap(file(normalised(images, file.card.mean, file.card.std)), wanted) < LIMIT["fp32"]


@pytest.mark.parametrize("suffix", ["onnx", "mindir"])
def test_a_large_model_has_its_weights_beside_it(suffix, checkpoints, tmp_path, monkeypatch, capsys):
    """As beyond 2 GiB of ONNX, and beyond 1 GiB of MindIR; the pair works wherever it lies."""
    from mindspore.train import serialization

    monkeypatch.setattr(writer, "LARGEST_ONNX", 10_000)
    monkeypatch.setattr(serialization, "TOTAL_SAVE", 10)  # kilobytes
    (tmp_path / "made").mkdir()
    target = tmp_path / "made" / f"model.{suffix}"
    assert export(monkeypatch, checkpoints[DEIT], target, "--batch", "2") == 0
    assert f"wrote {target} and model.{suffix}.data: {DEIT}, " in capsys.readouterr().out
    names = {path.name for path in target.parent.iterdir()}
    assert names == {target.name, f"{target.name}.data", *([f"{target.name}.json"] if suffix == "mindir" else [])}
    assert target.stat().st_size < checkpoints[DEIT].stat().st_size / 2
    moved = target.parent.rename(tmp_path / "moved") / target.name
    file, images = Exported(moved), digits(2)
    got = file(normalised(images, file.card.mean, file.card.std))
    assert gap(got, model_logits(checkpoints[DEIT], images)) < LIMIT["fp32"]
    (tmp_path / "moved" / f"{target.name}.data").unlink()
    with pytest.raises(UserError, match=f"model.{suffix}.data"):
        Exported(moved)


@pytest.mark.parametrize("suffix", ["onnx", "mindir"])
def test_a_file_that_differs_is_not_kept(suffix, checkpoints, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(verify.LIMITS, "fp32", 1e-12)  # closer than float32 can come
    target = tmp_path / f"model.{suffix}"
    assert export(monkeypatch, checkpoints[DEIT], target, "--batch", "1") == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1].endswith("limit 1e-12: DIFFERENT")
    assert shown.err.splitlines()[-1] == f"nothing was written to {target}: its results are not the model's"
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_leaves_the_one_before_it(checkpoints, made, tmp_path, monkeypatch, capsys):
    from mindeit.export import onnx_operators

    target = Path(shutil.copy(made(DEIT, "onnx", "--batch", "1").file, tmp_path))
    before = target.read_bytes()
    monkeypatch.setitem(onnx_operators.OPERATORS, "Gelu", onnx_operators.same("Relu"))  # a bug in one operator
    assert export(monkeypatch, checkpoints[DEIT], target, "--batch", "1") == 1
    assert "DIFFERENT" in capsys.readouterr().out
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_an_operator_without_an_onnx_form_is_named(checkpoints, tmp_path, monkeypatch, capsys):
    from mindeit.export import onnx_operators

    monkeypatch.delitem(onnx_operators.OPERATORS, "Sigmoid")
    assert export(monkeypatch, checkpoints[REGNET], tmp_path / "model.onnx", "--batch", "1") == 2
    assert capsys.readouterr().err == (
        "error: s1/b1/se/fc2: no ONNX form is known for MindSpore's Sigmoid; allowed: --format MINDIR\n"
    )
    assert list(tmp_path.iterdir()) == []


BAD_INPUT = [
    (["--format", "ONXX"], "command line: --format is 'ONXX', allowed: MINDIR, ONNX, AIR or None"),
    (["--format", None], "command line: give --format MINDIR, ONNX or AIR for a file, or --web FOLDER for a page"),
    (
        ["--format", "AIR", "--output", None],
        "format AIR needs Ascend's toolkit, missing libascend_hal.so, "
        "libascendcl.so, libge_runner.so, libhccl.so, Python package te, Python package hccl; allowed here: MINDIR, "
        "ONNX",
    ),
    (["--ckpt_path", "/nope.ckpt"], "/nope.ckpt: no such file"),
    (
        ["--ckpt_path", None],
        "no weights: give --ckpt_path FILE, or --pretrained True --model NAME for the official ones",
    ),
    (["--pretrained", "True"], "--pretrained needs --model NAME, and no --ckpt_path"),
    (["--output", "/proc/model.onnx"], "/proc/model.onnx: cannot write there: No such file or directory"),
    (["--output", "model.mindir"], "output model.mindir ends in '.mindir'; format ONNX allows .onnx"),
    (["--batch", "0"], "command line: --batch is '0', allowed: a whole number, at least 1, or dynamic"),
    (["--batch", "many"], "command line: --batch is 'many', allowed: a whole number, at least 1, or dynamic"),
    (["--precision", "int4"], "command line: --precision is 'int4', allowed: fp32, fp16, fp16-weights, int8 or None"),
    (["--heads", "none"], "command line: --heads is 'none', allowed: mean or both"),
    (["--num_classes", "5"], "command line: --num_classes is '5', allowed: 0 or None"),
    (["--image_size", "33"], "image_size is 33; allowed: multiples of the patch size 8"),
    (
        ["--model", "deit_tiny"],
        "command line: unknown model 'deit_tiny' (nearest: 'deit_tiny_patch16_224'); mindeit models shows all",
    ),
    (
        ["--batch", "99999999999"],
        "--batch is 99999999999: a batch of images of 32 pixels takes 1,144,409 GiB of "
        "memory, this machine has {memory} GiB",
    ),
    (["--use_ema"], "{ckpt} holds one set of weights; use_ema is for training checkpoints"),
    (["--ckpt_path", "nameless.ckpt"], "nameless.ckpt: the weights fit no known model"),
    (["--ckpt_path", "{regnet}", "--heads", "both"], "heads is both, but regnety_mini_32 has one head; allowed: mean"),
    (["--lr", "1"], "command line: '--lr' is an option of other scripts, not of this one"),
]


@pytest.mark.parametrize(("change", "message"), BAD_INPUT, ids=[" ".join(map(str, words)) for words, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_nothing_is_written(change, message, checkpoints, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "nameless.ckpt" in change:
        checkpoint.write("nameless.ckpt", {"weight": np.zeros((3, 3), np.float32)})
    places = {"ckpt": checkpoints[DEIT], "regnet": checkpoints[REGNET], "memory": f"{machine_memory() / 2**30:,.0f}"}
    options = {"--ckpt_path": "{ckpt}", "--format": "ONNX", "--output": "model.onnx"}
    options.update({"--use_ema": "True"} if change == ["--use_ema"] else dict(zip(change[::2], change[1::2])))
    words = [word.format(**places) for pair in options.items() if pair[1] is not None for word in pair]
    before = set(tmp_path.iterdir())
    assert run_main("export.py", words, monkeypatch) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {message.format(**places)}")
    assert shown.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        f"deit_{size}_{kind}patch16_{pixels}"
        for size, kind, pixels in (
            ("tiny", "", 224),
            ("small", "", 224),
            ("base", "", 224),
            ("tiny", "distilled_", 224),
            ("small", "distilled_", 224),
            ("base", "distilled_", 224),
            ("base", "", 384),
            ("base", "distilled_", 384),
        )
    ],
)
def test_all_deit_models_as_onnx(name, tmp_path, monkeypatch):
    assert full_size_gap(name, tmp_path / "model.onnx", monkeypatch) < LIMIT["fp32"]


def test_a_token_for_each_class_is_exported(tmp_path, capsys):
    """One block of S60_multi; `export` compares the file with the model."""
    card = card_for(spec("S60_multi"), 7, 32, None)
    model = shallow("S60_multi", num_classes=7, image_size=32)
    writer.export(model, Description(card), tmp_path / "multi.onnx", "ONNX")
    assert "limit 1e-04: ok" in capsys.readouterr().out
    assert Exported(tmp_path / "multi.onnx").outputs(np.zeros((2, 3, 32, 32), np.float32))[0].shape == (2, 7)


def test_a_side_that_could_be_taken_for_the_batch_stays_a_side(tmp_path):
    """While it is traced, a model of any batch gets as many images as this one has classes, but for that."""
    checkpoint = write_checkpoint(tmp_path, DEIT, num_classes=mind_ir._ANY_BATCH[0])
    model, card = load_model(checkpoint)
    writer.export(model, Description(card), tmp_path / "model.onnx", "ONNX")
    (given,) = onnxruntime.InferenceSession(str(tmp_path / "model.onnx")).get_outputs()
    assert given.shape == ["batch", 10007]


class ByBatch(nn.Cell):
    """Computes otherwise from three images on, or subtracts their mean."""

    def __init__(self, num_classes: int, how: str, **_: object) -> None:
        super().__init__()
        self.conv, self.head, self.how = nn.Conv2d(3, 16, 8, 8), nn.Dense(16, num_classes), how

    def construct(self, images: Tensor) -> Tensor:
        x = ops.mean(self.conv(images), (2, 3))
        if self.how == "mean":
            x = x - ops.mean(x, 0, True)
        elif images.shape[0] > 2:
            x = x * 2
        return self.head(x)


@pytest.mark.parametrize("how", ["size", "mean"])
@pytest.mark.parametrize("kind", ["ONNX", "MINDIR"])
def test_a_model_that_depends_on_its_batch_needs_a_fixed_one(how, kind, tmp_path, monkeypatch):
    row = ModelSpec("by_batch", "by_batch", image_size=32, variant={"how": how})
    monkeypatch.setitem(registry.CATALOGUE, row.name, row)
    monkeypatch.setitem(registry._BUILDERS, row.family, ByBatch)
    target = tmp_path / f"model.{kind.lower()}"
    with pytest.raises(UserError, match="^the model computes otherwise for another batch; allowed: --batch N$"):
        writer.export(registry.build(row.name, num_classes=4), Description(card_for(row, 4, 32)), target, kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "mindir"])
@pytest.mark.parametrize(
    "name",
    ["deit_small_patch16_18x2_LS", "deit_small_patch16_LS_hMLP", "cait_XXS24_224", "resmlp_12", "S60", "S60_multi"],
)
def test_the_zoo_in_full_size(name, suffix, tmp_path, monkeypatch):
    assert full_size_gap(name, tmp_path / f"model.{suffix}", monkeypatch) < LIMIT["fp32"]


@pytest.mark.slow
def test_more_than_a_gibibyte_of_weights_lies_beside_mindir(tmp_path, monkeypatch):
    assert full_size_gap("deit_large_patch16_LS", tmp_path / "model.mindir", monkeypatch) < LIMIT["fp32"]
    assert (tmp_path / "model.mindir.data").stat().st_size > 1 << 30


def full_size_gap(name: str, target: Path, monkeypatch) -> float:
    size = spec(name).image_size
    source = write_checkpoint(target.parent, name, 1000, size)
    assert export(monkeypatch, source, target) == 0
    file, images = Exported(target), digits(2, size)
    wanted = model_logits(source, images)
    return gap(file(normalised(images, file.card.mean, file.card.std)), wanted)


def test_files_that_are_none_are_refused(tmp_path, made):
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(UserError, match=r"text.onnx: onnxruntime cannot load it \("):
        Exported(tmp_path / "text.onnx")
    (tmp_path / "text.mindir").write_text("text")
    with pytest.raises(UserError, match=r"text.mindir: its description .*text.mindir.json is missing"):
        Exported(tmp_path / "text.mindir")
    sidecar(tmp_path / "text.mindir").write_text("{}")
    with pytest.raises(UserError, match=r"text.mindir.json: not what export.py writes: lacks model"):
        Exported(tmp_path / "text.mindir")
    sidecar(tmp_path / "text.mindir").write_text("text")
    with pytest.raises(UserError, match=r"text.mindir.json: is not readable as JSON \(Expecting value\): 'text'"):
        Exported(tmp_path / "text.mindir")
    whole = made(REGNET, "mindir", "--batch", "2").file
    sidecar(tmp_path / "text.mindir").write_bytes(sidecar(whole).read_bytes())
    with pytest.raises(UserError, match=r"text.mindir: MindSpore cannot load it: not a MindIR file, or damaged, or"):
        Exported(tmp_path / "text.mindir", check=False)
