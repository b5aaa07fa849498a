"""Every kind of source yields the right images, labels and class names, and one line for a mistake."""

from __future__ import annotations

import io
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets, model_selection

from mindeit.data import open_source
from mindeit.errors import UserError

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mindeit"


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 5), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(root, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(root)


def shades(source) -> list[int]:
    return [source.read(index).getpixel((0, 0))[0] for index in range(len(source))]


def age(root) -> None:
    """A folder that changed just now is not cached."""
    for level, _, _ in os.walk(root):
        os.utime(level, (time.time() - 60,) * 2)


# ---------------------------------------------------------------- folders
def test_class_folders_are_ordered_as_torchvision_orders_them(tmp_path):
    data = write(
        tmp_path / "d",
        {
            "train/b/2.png": png(20),
            "train/b/10.PNG": png(10),
            "train/a/sub/x.png": png(2),
            "train/a/z.png": png(1),
            "train/a/notes.txt": b"",
            "train/C/y.jpeg": png(30),
        },
    )
    source = open_source("image_folder", data, "train")
    assert source.class_names == ("C", "a", "b") and source.num_classes == 3
    assert source.labels.tolist() == [0, 1, 1, 2, 2] and source.labels.dtype == np.int32
    assert shades(source) == [30, 1, 2, 10, 20]
    assert source.where(2) == os.path.join(data, "train", "a/sub/x.png")


def test_validation_labels_come_from_the_training_classes(tmp_path):
    data = write(
        tmp_path / "d",
        {"train/a/1.png": png(1), "train/b/1.png": png(1), "train/c/1.png": png(1), "val/c/1.png": png(3)},
    )
    source = open_source("image_folder", data, "val")
    assert source.labels.tolist() == [2] and source.num_classes == 3


def test_the_training_split_numbers_the_classes_whatever_it_is_called(tmp_path):
    data = write(
        tmp_path / "d", {"train/x/1.png": png(1), "mine/a/1.png": png(1), "mine/c/1.png": png(1), "val/c/1.png": png(3)}
    )
    assert open_source("image_folder", data, "mine", train_split="mine").class_names == ("a", "c")
    held_out = open_source("image_folder", data, "val", train_split="mine")
    assert held_out.labels.tolist() == [1] and held_out.class_names == ("a", "c")
    assert len(open_source("digits", None, "mine", train_split="mine")) == len(open_source("digits", None, "train"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train/a/1.png": png(1), "train/b/x.txt": b""}, r"no images in .*train/b \(.jpg"),
        ({"train/x.png": png(1)}, "no class folders in .*train: expected .*<class>"),
        (
            {"other/a/1.png": png(1)},
            "no 'train' folder in .*and no labels.txt or labels.csv for a flat .*there is: other",
        ),
    ],
)
def test_incomplete_folders_are_one_line(tmp_path, files, message):
    with pytest.raises(UserError, match=message) as error:
        open_source("image_folder", write(tmp_path / "d", files), "train")
    assert "\n" not in str(error.value)


def test_a_class_that_train_lacks_is_one_line(tmp_path):
    data = write(tmp_path / "d", {"train/dog/1.png": png(1), "val/dog/1.png": png(1), "val/dogg/1.png": png(1)})
    with pytest.raises(UserError, match="class folder 'dogg' in .*val is missing in .*train .nearest: 'dog'"):
        open_source("image_folder", data, "val")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", "x 1.png 1\ny.png 0\n"),
        ("labels.csv", "x 1.png,1\ny.png,0\n"),
        ("labels.csv", "filename,label\nx 1.png,1\ny.png,0\n"),
        ("labels.txt", "x 1.png dog\ny.png cat\n"),
    ],
)
def test_a_flat_folder_is_read_through_its_label_file(tmp_path, name, text):
    data = write(tmp_path / "d", {"x 1.png": png(1), "y.png": png(2), name: text.encode()})
    source = open_source("image_folder", data, "val")
    assert source.labels.tolist() == [1, 0] and shades(source) == [1, 2]
    assert source.class_names == (("cat", "dog") if "dog" in text else ("0", "1"))


@pytest.mark.parametrize(
    ("text", "classes", "message"),
    [
        ("x.png 7\n", "a\nb\n", r"labels.txt: label 7 of x.png is outside 0\.\.1"),
        ("x.png -1\n", "", r"label -1 of x.png is outside 0\.\.0"),
        ("x.png dgo\n", "cat\ndog\n", "label 'dgo' is not in .*classes.txt .nearest: 'dog'"),
        ("gone.png 0\n", "", "labels.txt names 'gone.png', which is not in"),
        ("x.png 99999999\n", "", "label 99999999 is no class number"),
        ("x.png\n", "", "labels.txt, entry 1: expected a file name and a label, found 'x.png'"),
        ("", "", "labels.txt lists no images"),
    ],
)
def test_wrong_label_files_are_one_line(tmp_path, text, classes, message):
    data = write(tmp_path / "d", {"x.png": png(1), "labels.txt": text.encode(), "classes.txt": classes.encode()})
    with pytest.raises(UserError, match=message):
        open_source("image_folder", data, "val")


def test_labels_beyond_the_models_classes_are_refused(tmp_path):
    data = write(tmp_path / "d", {"x.png": png(1), "labels.txt": b"x.png 12\n"})
    assert open_source("image_folder", data, "val", num_classes=13).labels.tolist() == [12]
    with pytest.raises(UserError, match=r"label 12 of .*x.png is outside 0\.\.9"):
        open_source("image_folder", data, "val", num_classes=10)


@pytest.mark.parametrize(
    ("dataset", "folder", "message"),
    [
        ("image_foldr", ".", "dataset is 'image_foldr'; allowed: image_folder, cifar10.*nearest: 'image_folder'"),
        ("image_folder", None, "dataset 'image_folder' needs a data_dir"),
        ("image_folder", "/no/such", "data_dir /no/such is not a folder"),
    ],
)
def test_wrong_names_and_folders_are_one_line(dataset, folder, message):
    with pytest.raises(UserError, match=message):
        open_source(dataset, folder, "train")


# ---------------------------------------------------------------- index cache
def test_the_index_is_read_from_disk_until_a_folder_changes(tmp_path, own_cache, monkeypatch):
    data = write(tmp_path / "d", {"train/a/1.png": png(1), "train/b/1.png": png(2)})
    age(tmp_path / "d")
    assert len(open_source("image_folder", data, "train")) == 2
    assert len(list(own_cache.glob("index-*.npz"))) == 1

    def no_walk(*args, **kwargs):
        raise AssertionError("walked the folder although nothing had changed")

    with monkeypatch.context() as patch:
        patch.setattr("mindeit.data.index_cache.os.walk", no_walk)
        assert shades(open_source("image_folder", data, "train")) == [1, 2]
    write(tmp_path / "d", {"train/b/0.png": png(9)})
    assert shades(open_source("image_folder", data, "train")) == [1, 9, 2]
    os.remove(tmp_path / "d/train/b/1.png")
    assert shades(open_source("image_folder", data, "train")) == [1, 9]


def test_a_damaged_index_is_built_again(tmp_path, own_cache):
    data = write(tmp_path / "d", {"train/a/1.png": png(1)})
    age(tmp_path / "d")
    open_source("image_folder", data, "train")
    (path,) = own_cache.glob("index-*.npz")
    whole = path.read_bytes()
    for content in (b"", b"rubbish", whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert shades(open_source("image_folder", data, "train")) == [1]


def test_a_folder_that_changed_just_now_is_not_cached(tmp_path, own_cache):
    open_source("image_folder", write(tmp_path / "d", {"train/a/1.png": png(1)}), "train")
    assert not list(own_cache.glob("*"))


# ---------------------------------------------------------------- digits
def test_digits_have_a_fixed_stratified_split():
    train, val = open_source("digits", None, "train"), open_source("digits", None, "val")
    assert (len(train), len(val)) == (1437, 360) and train.class_names == tuple("0123456789")
    assert np.bincount(val.labels).min() >= 34
    assert train.read(0).size == (8, 8) and max(train.read(i).getextrema()[0][1] for i in range(20)) == 255


def test_the_digits_and_their_split_are_those_of_scikit_learn():
    scans, labels = datasets.load_digits(return_X_y=True)
    split = model_selection.train_test_split(range(1797), test_size=360, stratify=labels, random_state=0)
    for rows, name in zip(split, ("train", "val")):
        ours = open_source("digits", None, name)
        assert np.array_equal(ours.labels, labels[rows])
        pixels = np.stack([np.asarray(ours.read(i))[..., 0] for i in range(len(ours))])
        assert np.array_equal(pixels, np.rint(scans[rows].reshape(-1, 8, 8) * 255 / 16))


# ---------------------------------------------------------------- CIFAR
def cifar_files(classes: int, kind: str) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """A small CIFAR in one of its two formats, its training pixels and labels."""
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"] if classes == 10 else ["train", "test"]
    files, pixels, labels = {}, [], []
    for name in names:
        part, label = RNG.integers(0, 256, (4, 3072), dtype=np.uint8), RNG.integers(0, classes, 4)
        if kind == "pickle":
            key = b"labels" if classes == 10 else b"fine_labels"
            files[name] = pickle.dumps({b"data": part, key: label.tolist()}, protocol=2)
        else:
            extra = [np.zeros((4, 1), np.uint8)] * (classes == 100)
            files[name + ".bin"] = np.hstack([*extra, label[:, None].astype(np.uint8), part]).tobytes()
        if not name.startswith("test"):
            pixels.append(part)
            labels.append(label)
    return files, np.concatenate(pixels), np.concatenate(labels)


@pytest.mark.parametrize("kind", ["pickle", "binary"])
@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_is_read_from_pickles_and_binaries(tmp_path, classes, kind):
    files, pixels, labels = cifar_files(classes, kind)
    below = {
        (10, "pickle"): "cifar-10-batches-py",
        (10, "binary"): "cifar-10-batches-bin",
        (100, "pickle"): "cifar-100-python",
        (100, "binary"): ".",
    }[classes, kind]
    data = write(tmp_path / "d", {f"{below}/{name}": content for name, content in files.items()})
    source = open_source(f"cifar{classes}", data, "train")
    assert np.array_equal(source.labels, labels) and source.num_classes == classes
    assert np.array_equal(np.asarray(source.read(3)), pixels[3].reshape(3, 32, 32).transpose(1, 2, 0))
    assert len(open_source(f"cifar{classes}", data, "val")) == 4


def test_cifar_names_come_from_its_meta_file(tmp_path):
    files, _, _ = cifar_files(10, "pickle")
    words = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    files["batches.meta"] = pickle.dumps({b"label_names": [word.encode() for word in words]}, protocol=2)
    assert open_source("cifar10", write(tmp_path / "d", files), "val").class_names == tuple(words)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_that_runs_code_is_refused_unexecuted(tmp_path):
    files, _, _ = cifar_files(10, "pickle")
    mark = tmp_path / "executed"
    files["test_batch"] = pickle.dumps({b"data": Bomb(str(mark)), b"labels": []}, protocol=2)
    with pytest.raises(UserError, match="test_batch is not a plain pickle of arrays: it asks for .*open"):
        open_source("cifar10", write(tmp_path / "d", files), "val")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "test_batch is not a plain pickle"),
        (b"\x80\x02", "test_batch is not a plain pickle"),
        (pickle.dumps({b"data": 3}), "test_batch is not a CIFAR-10 batch"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}), r"label 10 of image 0 is outside"),
    ],
)
def test_damaged_cifar_is_one_line(tmp_path, content, message):
    files, _, _ = cifar_files(10, "pickle")
    with pytest.raises(UserError, match=message):
        open_source("cifar10", write(tmp_path / "d", {**files, "test_batch": content}), "val")


def test_cut_cifar_binary_and_missing_cifar_are_one_line(tmp_path):
    files, _, _ = cifar_files(100, "binary")
    data = write(tmp_path / "d", {"train.bin": files["train.bin"][:-1], "test.bin": b""})
    with pytest.raises(UserError, match="train.bin has 12295 bytes; a CIFAR-100 file is a multiple of 3074"):
        open_source("cifar100", data, "train")
    with pytest.raises(UserError, match="no CIFAR-10 in .*expected data_batch_1"):
        open_source("cifar10", data, "train")


# ---------------------------------------------------------------- iNaturalist
def inat_json(**changes) -> bytes:
    content = {
        "images": [
            {"id": 7, "file_name": "train_val2019/Birds/3/x.png"},
            {"id": 8, "file_name": "train_val2019/Birds/1/y.png"},
        ],
        "annotations": [{"image_id": 7, "category_id": 3}, {"image_id": 8, "category_id": 1}],
        "categories": [{"id": 3, "name": "owl"}, {"id": 1, "name": "gull"}, {"id": 0, "name": "ant"}],
    }
    return json.dumps({**content, **changes}).encode()


@pytest.mark.parametrize("folder", ["train_val2019/Birds/", "train_val2019/"])
def test_inaturalist_labels_are_category_ids(tmp_path, folder):
    data = write(tmp_path / "d", {"val2019.json": inat_json(), f"{folder}3/x.png": png(5), f"{folder}1/y.png": png(6)})
    source = open_source("inat2019", data, "val")
    assert source.labels.tolist() == [2, 1] and shades(source) == [5, 6]
    assert source.class_names == ("ant", "gull", "owl")


def test_inaturalist_2018_takes_its_names_from_categories_json(tmp_path):
    names = json.dumps([{"id": i, "name": f"n{i}", "supercategory": "x"} for i in range(4)]).encode()
    data = write(tmp_path / "d", {"train2018.json": inat_json(categories=[]), "categories.json": names})
    assert open_source("inat2018", data, "train").class_names == ("n0", "n1", "n2", "n3")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "val2019.json is not valid json"),
        (b"{}", "val2019.json lacks 'annotations'"),
        (
            inat_json(categories=[{"id": 1, "name": "gull"}]),
            "category 3 of train_val2019/Birds/3/x.png is not among the 1",
        ),
        (inat_json(images=[]), "no images in split 'val'"),
    ],
)
def test_wrong_inaturalist_files_are_one_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        open_source("inat2019", write(tmp_path / "d", {"val2019.json": content}), "val")
    with pytest.raises(UserError, match="no such file: .*train2019.json"):
        open_source("inat2019", str(tmp_path / "d"), "train")


# ---------------------------------------------------------------- tar shards
def tar(rows: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in rows:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def test_tar_shards_are_read_in_order(tmp_path):
    data = write(
        tmp_path / "d",
        {
            "train-001.tar": tar([("k/3.jpg", png(3)), ("k/3.cls", b"2\n")]),
            "train-000.tar": tar(
                [("1.cls", b"0"), ("1.jpg", png(1)), ("2.png", png(2)), ("2.cls", b"1"), ("2.json", b"{}")]
            ),
            "classes.txt": b"ant\nbee\ncow\n",
        },
    )
    for _ in range(2):
        source = open_source("webdataset", data, "train")
        assert source.labels.tolist() == [0, 1, 2] and shades(source) == [1, 2, 3]
        assert source.class_names == ("ant", "bee", "cow") and source.where(2).endswith("train-001.tar: k/3.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar([("1.jpg", png(1))]), "image 1.jpg has no .cls beside it"),
        (tar([("1.jpg", png(1)), ("1.cls", b"dog")]), "1.cls holds b'dog' instead of a label number"),
        (tar([("1.jpg", png(1)), ("1.cls", b"-4")]), "label -4 of 1.cls is outside"),
        (tar([("1.jpg", png(1) * 40), ("1.cls", b"1")])[:1500], "train-0.tar is not a whole tar file"),
        (b"rubbish" * 100, "train-0.tar is not a whole tar file"),
        (b"", "train-0.tar is not a whole tar file"),
    ],
)
def test_wrong_tar_shards_are_one_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        open_source("webdataset", write(tmp_path / "d", {"train-0.tar": content}), "train")
    with pytest.raises(UserError, match=r"no val\*.tar in"):
        open_source("webdataset", str(tmp_path / "d"), "val")


# ---------------------------------------------------------------- MindRecord
WRITE_RECORDS = """
import io, sys
from mindspore.mindrecord import FileWriter
from PIL import Image
def png(shade):
    file = io.BytesIO(); Image.new("RGB", (6, 5), (shade, 0, 0)).save(file, "PNG"); return file.getvalue()
root = sys.argv[1]
writer = FileWriter(root + "/train.mindrecord", shard_num=2)
writer.add_schema({"name": {"type": "string"}, "data": {"type": "bytes"}, "label": {"type": "int32"}})
writer.add_index(["label"])
writer.write_raw_data([{"name": str(i), "data": png(i), "label": i % 3} for i in range(10)])
writer.commit()
writer = FileWriter(root + "/val.mindrecord", shard_num=1)  # two bytes columns, label not indexed
writer.add_schema({"a_name": {"type": "string"}, "image": {"type": "bytes"}, "mask": {"type": "bytes"},
                   "label": {"type": "int64"}})
writer.add_index(["a_name"])
writer.write_raw_data([{"a_name": str(i), "image": png(i), "mask": bytes(i), "label": i % 3} for i in range(10)])
writer.commit()
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("records")
    subprocess.run([sys.executable, "-c", WRITE_RECORDS, str(root)], check=True, capture_output=True)
    return str(root)


def test_mindrecord_is_read_at_random(records):
    source = open_source("mindrecord", records, "train")
    assert sorted(shades(source)) == list(range(10)) and source.num_classes == 3
    assert [shade % 3 for shade in shades(source)] == source.labels.tolist()
    assert source.where(9).endswith("train.mindrecord1, row 4")


def test_mindrecord_finds_its_column_among_several_and_labels_without_an_index(records):
    source = open_source("mindrecord", records, "val")
    assert shades(source) == list(range(10)) and source.labels.tolist() == [i % 3 for i in range(10)]


def test_damaged_mindrecords_are_one_line(records, tmp_path):
    whole = {name: (pathlib.Path(records) / name).read_bytes() for name in ("val.mindrecord", "val.mindrecord.db")}
    for changed, message in (
        ({"val.mindrecord": whole["val.mindrecord"][:4]}, "val.mindrecord is not a MindRecord"),
        ({"val.mindrecord": b"x" * 4000}, "val.mindrecord is not a MindRecord"),
        ({"val.mindrecord": whole["val.mindrecord"][: 2**24]}, "one is cut short"),
        ({"val.mindrecord.db": b"x" * 4000}, "val.mindrecord.db is damaged"),
    ):
        data = write(tmp_path / "d", {**whole, **changed})
        with pytest.raises(UserError, match=message):
            open_source("mindrecord", data, "val")
    os.remove(tmp_path / "d/val.mindrecord.db")
    with pytest.raises(UserError, match="val.mindrecord.db is missing"):
        open_source("mindrecord", data, "val")
    with pytest.raises(UserError, match=r"no train\*.mindrecord in"):
        open_source("mindrecord", data, "train")


# ---------------------------------------------------------------- fuzz
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("cifar10", "test_batch"),
        ("webdataset", "val.tar"),
        ("inat2019", "val2019.json"),
        ("image_folder", "labels.csv"),
    ],
)
def test_mutated_indices_give_a_source_or_one_line(tmp_path, dataset, name):
    rng = np.random.default_rng(1)
    content = {
        "cifar10": cifar_files(10, "pickle")[0]["test_batch"],
        "inat2019": inat_json(),
        "webdataset": tar([("1.jpg", png(1)), ("1.cls", b"1"), ("2.jpg", png(2)), ("2.cls", b"1")]),
        "image_folder": b"x.png,1\ny.png,0\n",
    }[dataset]
    root = tmp_path / "d"
    write(root, {"x.png": png(1), "y.png": png(2)})
    outcomes = set()
    for number in range(125):
        damaged = bytearray(content)
        for place in rng.integers(len(damaged) if number % 2 else min(700, len(damaged)), size=1 + number % 5):
            damaged[place] = rng.integers(256)
        (root / name).write_bytes(bytes(damaged[: rng.integers(1, len(damaged))] if number % 3 == 0 else damaged))
        try:
            source = open_source(dataset, str(root), "val")
            outcomes.add("source")
            source.read(len(source) - 1)
        except UserError as error:
            assert "\n" not in str(error)
            outcomes.add("error")
    assert "error" in outcomes
