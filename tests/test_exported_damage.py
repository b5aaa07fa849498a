"""Exported files that were changed, or are not what they say: one line, never a prediction."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import onnx
import pytest
from exported_files import DEIT, export, write_checkpoint
from onnx import TensorProto, helper
from PIL import Image
from test_validate import run_main
from training_runs import one_block

from mindeit.errors import UserError
from mindeit.export.exported import Exported
from mindeit.export.file_digest import sidecar, write_digest
from mindeit.weights.integrity import DIGEST_KEY

SUFFIXES = (".onnx", ".mindir")
IMAGES = np.zeros((2, 3, 32, 32), np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch, one_block(DEIT):
        checkpoint = write_checkpoint(folder, DEIT, class_names=tuple("0123456789"))
        for suffix in SUFFIXES:
            assert export(monkeypatch, checkpoint, folder / f"a{suffix}", "--batch", "2") == 0
    return folder


@pytest.fixture
def files(made, tmp_path):
    for path in made.glob("a.*"):
        shutil.copy(path, tmp_path)
    return tmp_path


def message(path, **options) -> str:
    with pytest.raises(UserError) as caught:
        Exported(path, **options).outputs(IMAGES)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_bit_is_refused_wherever_it_is(suffix, files, capfd):
    path, draw = files / f"a{suffix}", random.Random(0)
    Exported(path)
    whole = path.read_bytes()
    for at in [3, *draw.choices(range(len(whole)), k=8)]:
        content = bytearray(whole)
        content[at] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        assert message(path) == (
            f"{path} is damaged or was changed: its content does not match the digest it carries; "
            "--no-check takes it as it is"
        )
    assert capfd.readouterr().err == ""


def test_a_description_that_was_changed_is_refused(files):
    beside = sidecar(files / "a.mindir")
    said = json.loads(beside.read_text())
    beside.write_text(json.dumps({**said, "mean": [0.1, 0.1, 0.1]}))
    assert "its content does not match the digest" in message(files / "a.mindir")
    beside.write_text(json.dumps(said, indent=3))  # the same in another form
    assert Exported(files / "a.mindir").description.card.mean == tuple(said["mean"])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_before_there_were_digests_is_read_with_a_note(suffix, files, capsys):
    path = files / f"a{suffix}"
    if suffix == ".onnx":
        model = onnx.load(path)
        kept = [entry for entry in model.metadata_props if entry.key != DIGEST_KEY]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        onnx.save(model, path)
    else:
        said = json.loads(sidecar(path).read_text())
        assert len(said.pop(DIGEST_KEY)) == 64
        sidecar(path).write_text(json.dumps(said))
    Exported(path)
    assert capsys.readouterr().err.startswith(f"note: {path} is of a time before files carried a digest")


def with_weights(path, values: float) -> None:
    """All of the head's, under a digest of its own: what a diverged run exports without a proof."""
    model = onnx.load(path)
    head = next(each for each in model.graph.initializer if each.name == "head.weight")
    head.raw_data = np.full(tuple(head.dims), values, np.float32).tobytes()
    onnx.save(model, path)
    write_digest(path)


def test_results_that_are_not_finite_end_every_door(files, digits, monkeypatch, capsys):
    path = files / "a.onnx"
    with_weights(path, np.nan)
    Image.new("RGB", (40, 40)).save(files / "p.png")
    for script, words in (("predict.py", [str(files / "p.png")]), ("validate.py", ["--data_dir", str(digits)])):
        assert run_main(script, ["--ckpt_path", str(path), *words], monkeypatch) == 2
        shown = capsys.readouterr()
        assert shown.err.splitlines()[-1] == (
            f"error: {path}: the results are not finite (NaN or infinity): the weights are damaged, or the precision "
            "is too low"
        )
        assert "%" not in shown.out


def test_no_check_takes_a_changed_file(files, monkeypatch, capsys):
    path = files / "a.onnx"
    content = path.read_bytes()
    assert content.count(b'"3", "4"') == 1
    path.write_bytes(content.replace(b'"3", "4"', b'"X", "4"'))
    Image.new("RGB", (40, 40)).save(files / "p.png")
    words = ["--ckpt_path", str(path), str(files / "p.png"), "--top_k", "10"]
    assert run_main("predict.py", words, monkeypatch) == 2
    assert "--no-check takes it as it is" in capsys.readouterr().err
    assert run_main("predict.py", [*words, "--no-check"], monkeypatch) == 0
    assert " X (3)" in capsys.readouterr().out


def tiny_graph(path, texts, kind=TensorProto.FLOAT, shape=(2, 3, 32, 32), classes=10) -> None:
    """Sums of each image's values, described as whatever ``texts`` say."""
    width = int(np.prod(shape[1:]))
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["logits"]),
    ]
    weights = helper.make_tensor("w", TensorProto.FLOAT, (width, classes), np.ones(width * classes, np.float32))
    taken = helper.make_tensor_value_info("images", kind, shape)
    given = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (shape[0], classes))
    graph = helper.make_graph(nodes, "g", [taken], [given], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in texts.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"kind": TensorProto.INT64},
            "takes tensor(int64) (2, 3, 32, 32), but describes itself as taking tensor(float) "
            "(2, 3, 32, 32); export it anew (export.py)",
        ),
        ({"shape": (2, 3072)}, "takes tensor(float) (2, 3072), but describes itself as taking tensor(float)"),
        ({"shape": (2, 3, 48, 48)}, "cannot be run on float32 (2, 3, 32, 32) ("),
        ({"classes": 7}, "gives [(2, 7)] for 2 images, but describes itself as giving logits of 10 classes"),
    ],
)
def test_an_onnx_file_that_is_not_what_it_says_is_one_line(options, words, files):
    texts = {entry.key: entry.value for entry in onnx.load(files / "a.onnx").metadata_props if entry.key != DIGEST_KEY}
    tiny_graph(files / "b.onnx", texts, **options)
    assert message(files / "b.onnx").startswith(f"{files / 'b.onnx'}: {words}")


def test_onnx_metadata_that_are_not_utf8_are_one_line(files):
    tiny_graph(files / "b.onnx", {"model": "x" * 5})
    content = (files / "b.onnx").read_bytes()
    assert content.count(b"xxxxx") == 1
    (files / "b.onnx").write_bytes(content.replace(b"xxxxx", b"\xff\xfexxx"))
    assert "its metadata are not UTF-8" in message(files / "b.onnx")


def test_a_mindir_file_that_fails_at_its_first_run_is_one_line(files, capfd):
    beside = sidecar(files / "a.mindir")
    said = json.loads(beside.read_text())
    del said[DIGEST_KEY]
    beside.write_text(json.dumps({**said, "image_size": 48}))
    with pytest.raises(UserError, match=r"a.mindir: cannot be run on float32 \(2, 3, 48, 48\) \(.*\); export it anew"):
        Exported(files / "a.mindir").outputs(np.zeros((2, 3, 48, 48), np.float32))


def test_weights_that_are_not_finite_are_named(tmp_path, monkeypatch, capsys):
    from mindeit.weights import checkpoint as checkpoints

    path = write_checkpoint(tmp_path, DEIT)
    state, card = checkpoints.read(path)
    state["norm.beta"][3] = np.inf
    checkpoints.write(path, state, card)
    for script, words in (
        ("predict.py", ["--ckpt_path", str(path), str(tmp_path / "p.png")]),
        ("export.py", ["--ckpt_path", str(path), "--format", "ONNX"]),
        ("convert_pt2ms.py", ["--input", str(path), "--output", str(tmp_path / "b.safetensors")]),
    ):
        Image.new("RGB", (40, 40)).save(tmp_path / "p.png")
        assert run_main(script, words, monkeypatch) == 2
        assert capsys.readouterr().err == (
            f"error: {path}: 1 of {len(state)} tensors hold values that are not finite (NaN or infinity): norm.beta\n"
        )


@pytest.mark.parametrize("suffix", [".ckpt", ".pth", ".safetensors", ".onnx", ".mindir"])
@pytest.mark.parametrize(
    ("script", "option", "words"),
    [
        ("predict.py", "--ckpt_path", ["p.png"]),
        ("validate.py", "--ckpt_path", ["--data_dir", "."]),
        ("export.py", "--ckpt_path", ["--format", "ONNX"]),
        ("convert_pt2ms.py", "--input", ["--output", "a.ckpt"]),
    ],
)
def test_a_name_of_300_characters_is_one_line(script, option, words, suffix, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("val/a", "val/b", "train/a", "train/b"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "p.png")
    Image.new("RGB", (8, 8)).save("p.png")
    assert run_main(script, [option, "x" * 300 + suffix, *words], monkeypatch) == 2
    assert capsys.readouterr().err.count("File name too long") == 1
