"""``mindeit embed``: the features of a folder, as the model gives them for one image after another."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from exported_files import export, write_checkpoint

import mindeit
from mindeit.cli import main as console
from mindeit.data.class_folders import open_images, open_parts
from mindeit.predict import feature_table
from mindeit.predict.embed import embed
from mindeit.predict.feature_table import FeatureTable
from mindeit.runtime import device

FAMILIES = {  # how many tokens stand before those of the patches
    "deit_mini_patch8_32_LS": 1,
    "deit_mini_distilled_patch8_32": 2,
    "cait_mini_patch8_32": 1,
    "resmlp_mini_patch8_32": 0,
    "patchconvnet_mini_32": 1,
}
QUICKEST = ("deit_mini_distilled_patch8_32", "resmlp_mini_patch8_32")
QUICK = ("--device_target", "CPU", "--num_parallel_workers", "1")


def called(capsys, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        console.main(["embed", *map(str, words), *QUICK])
    return (ended.value.code, *capsys.readouterr())


@pytest.fixture
def pynative(monkeypatch):
    """Small models, operator by operator: nothing compiles."""
    monkeypatch.setitem(device._graphs, "wanted", False)


def test_the_file_holds_features_labels_classes_and_files(digits, checkpoint, predictor, capsys, tmp_path):
    target = tmp_path / "features.npz"
    code, out, err = called(capsys, digits / "val", "--ckpt_path", checkpoint, "--output", target)
    assert code == 0, err
    assert out == f"{target}: 60 images, {predictor.model.num_features} features each\n"
    assert err.startswith("features of 60 images")
    table = FeatureTable.read(target)
    assert table.class_names == tuple("0123456789")
    assert table.files.tolist() == [str(path) for path in sorted(digits.glob("val/*/*.png"))]
    assert [table.class_names[label] for label in table.labels] == [name.split("/")[-2] for name in table.files]
    assert table.features.dtype == np.float32
    assert np.allclose(table.features, predictor.features(table.files.tolist()), atol=1e-5)
    with np.load(target) as file:
        assert sorted(file.files) == ["class_names", "features", "files", "labels", "parts"]


@pytest.mark.parametrize(
    ("name", "class_tokens"),
    [pytest.param(*row, marks=[] if row[0] in QUICKEST else [pytest.mark.slow]) for row in FAMILIES.items()],
)
def test_the_mean_of_patches_is_that_of_forward_features(name, class_tokens, pynative):
    from mindspore import Tensor

    model = mindeit.create_model(name, num_classes=3, depth=1).set_train(False)
    images = np.random.default_rng(0).standard_normal((1, 3, model.image_size, model.image_size), np.float32)
    tokens = model.forward_features(Tensor(images)).asnumpy()
    found = mindeit.Predictor(model).pooled(images, "mean")
    assert np.allclose(found, tokens[:, class_tokens:].mean(1), atol=1e-5)


@pytest.fixture
def few(digits, tmp_path):
    """Three digits of each of two classes."""
    for name in "34":
        place = tmp_path / "few" / name
        place.mkdir(parents=True)
        for path in sorted((digits / "val" / name).iterdir())[:3]:
            shutil.copy(path, place)
    return tmp_path / "few"


def test_images_that_cannot_be_read_are_left_out_on_request(few, pynative):
    predictor = mindeit.Predictor(mindeit.create_model("resmlp_mini_patch8_32", num_classes=3))
    whole, skipped = embed(predictor, open_parts(str(few)), shown=False)
    assert (len(whole), skipped) == (6, [])
    broken = sorted(few.glob("3/*"))[1]
    broken.write_bytes(b"no image")
    with pytest.raises(mindeit.UserError, match=f"cannot read image {broken}: not an image"):
        embed(predictor, open_parts(str(few)), shown=False)
    table, skipped = embed(predictor, open_parts(str(few)), skip_bad_images=True, shown=False)
    assert skipped == [str(broken)]
    assert np.allclose(table.features, np.delete(whole.features, 1, 0), atol=1e-6)
    assert table.files.tolist() == np.delete(whole.files, 1).tolist()
    assert table.labels.tolist() == [0, 0, 1, 1, 1]


def test_a_flat_folder_has_no_labels(few, pynative, tmp_path):
    predictor = mindeit.Predictor(mindeit.create_model("resmlp_mini_patch8_32", num_classes=0))
    table, _ = embed(predictor, open_images(str(few / "3")), shown=False)
    table.write(tmp_path / "flat.npz")
    again = FeatureTable.read(tmp_path / "flat.npz")
    assert set(again.labels.tolist()) == {-1} and again.class_names == ()
    assert again.files.tolist() == [str(path) for path in sorted((few / "3").iterdir())]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--output", "features.csv"), "features.csv ends in '.csv'; allowed: .npz, .parquet"),
        (("--part", "test"), "part is 'test', but {digits} has val"),
        (("--pool", "max"), "command line: --pool is 'max', allowed: token or mean"),
        ((), "no weights: give --ckpt_path FILE"),
    ],
)
def test_mistakes_are_told_before_work_starts(words, message, digits, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = called(capsys, digits, *words)
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: {message.format(digits=digits)}")


def test_a_pool_that_a_model_lacks_is_refused(pynative):
    images = np.zeros((1, 3, 32, 32), np.float32)
    convnet = mindeit.Predictor(mindeit.create_model("regnety_mini_32", num_classes=3))
    with pytest.raises(mindeit.UserError, match="regnety_mini_32 has no patches; allowed: pool 'token'"):
        convnet.pooled(images, "mean")
    multi = next(name for name in mindeit.list_models("*multi*"))
    each = mindeit.Predictor(mindeit.create_model(multi, num_classes=2, image_size=32))
    with pytest.raises(mindeit.UserError, match=f"{multi} has a token for each class, no common one; allowed: pool 'm"):
        each.pooled(images)


def test_a_parquet_holds_the_same(tmp_path):
    pytest.importorskip("pyarrow.parquet")
    names = ("cat", "dog")
    table = FeatureTable(
        np.arange(6, dtype=np.float32).reshape(3, 2),
        np.array(["a.png", "b.png", "ü.png"]),
        np.array(["train", "val", "val"]),
        np.array([0, 1, 0], np.int32),
        names,
    )
    table.write(tmp_path / "features.parquet")
    again = FeatureTable.read(tmp_path / "features.parquet")
    for name in ("features", "files", "parts", "labels"):
        assert np.array_equal(getattr(again, name), getattr(table, name))
    assert again.class_names == names


def test_without_pyarrow_a_parquet_is_refused_in_a_line(monkeypatch, digits, capsys):
    monkeypatch.setattr(feature_table, "pyarrow", None)
    code, _, err = called(capsys, digits, "--output", "features.parquet")
    assert (code, err) == (2, "error: features.parquet needs pyarrow: pip install 'pyarrow<22' (.npz does not)\n")


def test_an_exported_file_gives_the_features_that_it_holds(few, capsys, tmp_path):
    checkpoint = write_checkpoint(tmp_path, "resmlp_mini_patch8_32", num_classes=3)
    with pytest.MonkeyPatch.context() as patch:
        assert export(patch, checkpoint, tmp_path / "features.onnx", "--num_classes", "0") == 0
    capsys.readouterr()
    found = {}
    for file in (tmp_path / "features.onnx", checkpoint):
        code, _, err = called(capsys, few, "--ckpt_path", file, "--output", tmp_path / "features.npz")
        assert code == 0, err
        found[file.suffix] = FeatureTable.read(tmp_path / "features.npz").features
    assert np.abs(found[".onnx"] - found[".ckpt"]).max() < 1e-4 * found[".ckpt"].std()
    code, _, err = called(capsys, few, "--ckpt_path", tmp_path / "features.onnx", "--pool", "mean")
    assert err.splitlines()[-1].endswith("features.onnx gives its own features only; pool 'mean' needs a checkpoint")
    file = mindeit.Predictor(tmp_path / "features.onnx")
    card = dataclasses.replace(file.card, num_classes=3)
    file.model.description = dataclasses.replace(file.model.description, card=card)
    logits = mindeit.Predictor.of(file.model, card)
    with pytest.raises(mindeit.UserError, match="gives logits only; export features with --num_classes 0"):
        logits.pooled(np.zeros((1, 3, 32, 32), np.float32))
