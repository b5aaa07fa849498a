"""Odd and hostile files of every kind of source: a result, or one line without anything before it."""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
import resource
import sqlite3
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from mindeit.data import EvalTransform, decode_rgb, open_source, resizing
from mindeit.data.crops import padded_crop
from mindeit.data.folders import list_images
from mindeit.errors import UserError
from mindeit.files import write_json

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def usual_csv():
    """Python's own limit, which MindSpore lifts for the whole process."""
    limit = csv.field_size_limit(131_072)
    yield
    csv.field_size_limit(limit)


def png(shade: int = 0, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 5), (shade, 0, 0)).save(file, kind)
    return file.getvalue()


def write(root, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        pathlib.Path(os.fsdecode(path)).write_bytes(content)
    return str(root)


# ---------------------------------------------------------------- label files
@pytest.mark.parametrize(
    "first", ["filename,label", "Image,Class", "img_path,y", "file,target", "image_id,label", "picture,label"]
)
def test_a_heading_is_one_by_its_first_word_and_is_said(tmp_path, first):
    data = write(tmp_path, {"a.png": png(7), "labels.csv": f"{first}\na.png,0\n".encode()})
    source = open_source("image_folder", data, "val")
    assert len(source) == 1
    assert source.notes == (f"{data}/labels.csv: the first line, '{first.replace(',', ' ')}', is taken for a heading",)


@pytest.mark.parametrize("name", ["a.gif", "scan", "image"])
def test_a_first_row_that_names_a_file_is_no_heading(tmp_path, name):
    data = write(tmp_path, {name: png(7, "GIF"), "b.png": png(8), "labels.txt": f"{name} 1\nb.png 0\n".encode()})
    source = open_source("image_folder", data, "val")
    assert source.labels.tolist() == [1, 0] and source.notes == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.txt", b"pic_1.png 0\na.png 1\n", "names 'pic_1.png', which is not in .* \\(entry 1\\)"),
        ("labels.csv", b"filename,label\nb.png,0\n", "names 'b.png', which is not in .* \\(entry 2\\)"),
        ("labels.csv", b'"' + b"x" * 140_000 + b'",0\n', "not a table of file names and labels: field larger"),
        ("labels.txt", b"x" * 140_000 + b" 0\n", "names 'xxxxx.*xx\\.\\.\\.', which is not in"),
        ("labels.csv", b"a.png,0\0,1\n", "labels.csv"),
    ],
)
def test_odd_label_files_are_one_line(tmp_path, name, content, message, usual_csv):
    data = write(tmp_path, {"a.png": png(), name: content})
    with pytest.raises(UserError, match=message) as error:
        open_source("image_folder", data, "val")
    assert len(str(error.value)) < 600 and "\n" not in str(error.value)


# ---------------------------------------------------------------- names
def test_file_and_class_names_need_not_be_utf8(tmp_path):
    names = [os.fsdecode(b"train/caf\xe9/\xff.png"), os.fsdecode(b"train/b/x.png")]
    data = write(tmp_path / "a", {name: png(9) for name in names})
    source = open_source("image_folder", data, "train")
    assert source.class_names == ("b", "caf\\udce9") and source.read(1).getpixel((0, 0)) == (9, 0, 0)
    json.dumps(source.class_names).encode()
    flat = write(tmp_path / "b", {os.fsdecode(b"\xff.png"): png(5), "labels.txt": b"\xef\xbb\xbf\xff.png 0\n"})
    assert open_source("image_folder", flat, "val").read(0).getpixel((0, 0)) == (5, 0, 0)
    write_json(tmp_path / "names.json", [source.where(1)])
    assert json.loads((tmp_path / "names.json").read_bytes()) == [source.where(1)]


def test_a_script_prints_names_that_are_not_utf8():
    code = "import mindeit.errors as e; e.run_script(lambda argv: print('a\\udcff'))()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\\udcff\n", b"")


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_other_names_of_val_are_known(tmp_path, name):
    data = write(tmp_path, {"train/a/1.png": png(1), "train/b/1.png": png(2), f"{name}/b/1.png": png(3)})
    assert open_source("image_folder", data, "val").labels.tolist() == [1]
    write(tmp_path, {"val/a/1.png": png(4)})
    assert open_source("image_folder", data, "val").labels.tolist() == [0]


# ---------------------------------------------------------------- no regular files
def test_a_pipe_is_refused_at_once(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    for name in ("train/a/x.png", "val2019.json", "train-0.tar", "train.mindrecord"):
        os.mkfifo(tmp_path / name)
    data = str(tmp_path)
    with pytest.raises(UserError, match="cannot read image .*x.png: not a regular file"):
        open_source("image_folder", data, "train").read(0)
    for dataset, split, message in (
        ("inat2019", "val", "val2019.json is not valid json: .*not a regular file"),
        ("webdataset", "train", "train-0.tar is not a whole tar file: .*not a regular"),
        ("mindrecord", "train", "train.mindrecord is not a MindRecord file: .*not a reg"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(dataset, data, split)
    assert list_images([str(tmp_path / "train/a/x.png")])
    with pytest.raises(UserError, match="cannot read image /dev/zero: not a regular file"):
        decode_rgb("/dev/zero", "/dev/zero")


def test_decoders_print_nothing_of_their_own(tmp_path):
    """Two TIFFs: one at which libtiff complains, one at which Pillow warns."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)).save(
        file, "TIFF", compression="tiff_adobe_deflate"
    )
    whole = file.getvalue()
    middle = len(whole) // 2
    (tmp_path / "a.tif").write_bytes(whole[:middle] + bytes(40) + whole[middle + 40 :])
    (tmp_path / "b.tif").write_bytes(struct.pack("<2sHLHHHLLL", b"II", 42, 8, 1, 256, 4, 2**20, 2**20, 0) + bytes(9))
    code = """
import sys
from mindeit.data import decode_rgb
from mindeit.errors import UserError
for path in sys.argv[1:]:
    try:
        decode_rgb(path, path)
    except UserError as error:
        print("error")
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("error\nerror\n", "")


# ---------------------------------------------------------------- iNaturalist, MindRecord
@pytest.mark.parametrize(
    ("images", "annotations"),
    [
        ('[{"id": 7, "file_name": "x.png"}]', '[{"image_id": 7, "category_id": Infinity}]'),
        ('[{"id": NaN, "file_name": "x.png"}]', '[{"image_id": 7, "category_id": 1}]'),
        ('[{"id": 7, "file_name": "x.png"}]', '[{"image_id": 7, "category_id": 1e999}]'),
        ('[{"id": 7, "file_name": "x.png"}]', '[{"image_id": 7, "category_id": 1.5}]'),
        ('[{"id": 7, "file_name": "x.png"}]', '[{"image_id": [7], "category_id": 1}]'),
    ],
)
def test_ids_that_are_no_whole_numbers_are_one_line(tmp_path, images, annotations):
    text = f'{{"images": {images}, "annotations": {annotations}, "categories": [{{"id": 1, "name": "owl"}}]}}'
    with pytest.raises(UserError, match="val2019.json (is not valid json|lacks)") as error:
        open_source("inat2019", write(tmp_path, {"val2019.json": text.encode()}), "val")
    assert "\n" not in str(error.value)


def record(tmp_path, blob: bytes, header: dict, row: tuple) -> str:
    """A MindRecord of one row, as far as this reader looks at it."""
    text = json.dumps({"page_size": 4096, "header_size": 4096, **header}).encode()
    head = struct.pack("<Q", len(text)) + text
    (tmp_path / "train.mindrecord").write_bytes(head.ljust(4096, b"\0") + blob)
    with sqlite3.connect(tmp_path / "train.mindrecord.db") as database:
        database.execute("CREATE TABLE INDEXES (ROW_ID, PAGE_ID_BLOB, PAGE_OFFSET_BLOB, PAGE_OFFSET_BLOB_END, label_0)")
        database.execute("INSERT INTO INDEXES VALUES (0, ?, ?, ?, ?)", row)
    return str(tmp_path)


ONE, TWO = ({"schema": [{"blob_fields": names}]} for names in (["image"], ["image", "mask"]))


def test_a_record_of_two_columns_is_read(tmp_path):
    image = png(3)
    content = struct.pack(">Q", len(image)) + image + struct.pack(">Q", 0)
    blob = struct.pack("<Q", len(content)) + content
    source = open_source("mindrecord", record(tmp_path, blob, TWO, (0, 0, len(blob), 0)), "train")
    assert source.read(0).getpixel((0, 0)) == (3, 0, 0)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 10**6, 2])
def test_a_record_with_a_wrong_length_is_one_line(tmp_path, length):
    blob = bytes(8) + struct.pack(">Q", length) + png()
    source = open_source("mindrecord", record(tmp_path, blob, TWO, (0, 0, len(blob), 0)), "train")
    with pytest.raises(UserError, match="cannot read .*train.mindrecord, row 0: a column of|cannot read image"):
        source.read(0)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ({"schema": [{"blob_fields": {"image": 1}}]}, (0, 0, 10, 0), "is not a MindRecord file: blob_fields"),
        ({**ONE, "page_size": 2**70}, (0, 0, 10, 0), "is not a MindRecord file: page_size"),
        ({**ONE, "page_size": float("inf")}, (0, 0, 10, 0), "is not a MindRecord file: page_size"),
        ({**ONE, "header_size": "4096"}, (0, 0, 10, 0), "is not a MindRecord file: page_size"),
        (ONE, (2**62, 0, 10, 0), "do not belong together"),
        (ONE, (0, -1, 10, 0), "do not belong together"),
        (ONE, (0, 0, float("inf"), 0), "db is damaged"),
        (ONE, (0, 0, "x", 0), "db is damaged"),
        (ONE, (0, 0, 10, 2**32), "label 4294967296 is no class number"),
        (ONE, (0, 0, 10, -(2**32)), "label -4294967296 of .* is outside"),
    ],
)
def test_damaged_records_are_one_line(tmp_path, header, row, message):
    with pytest.raises(UserError, match=message):
        open_source("mindrecord", record(tmp_path, bytes(100), header, row), "train")


# ---------------------------------------------------------------- what resizing makes
def noise(width: int, height: int) -> Image.Image:
    numbers = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(numbers.integers(0, 2, (height, width, 3), np.uint8) * 255)


@pytest.mark.parametrize("resample", [BICUBIC, BILINEAR])
def test_a_part_of_a_resized_image_has_pillows_bits(resample, monkeypatch):
    monkeypatch.setattr(resizing, "_WHOLE", 0)
    numbers = np.random.default_rng(1)
    for width, height, size in ((1, 600, 8), (3, 200, 40), (300, 2, 30), (40, 40, 41), (16, 17, 200), (7, 90, 90)):
        whole = resizing.short_side_size(width, height, size)
        expected = noise(width, height).resize(whole, resample)
        for _ in range(6):
            left, top = (int(numbers.integers(0, side)) for side in whole)
            box = (left, top, *(int(numbers.integers(first + 1, side + 1)) for first, side in zip((left, top), whole)))
            part = resizing.resized_part(noise(width, height), whole, resample, box)
            assert part.size == (box[2] - left, box[3] - top) and part.tobytes() == expected.crop(box).tobytes()


def test_a_simple_crop_mirrors_as_numpy_does():
    image, size = noise(20, 50), 16
    whole = image.resize(resizing.short_side_size(20, 50, size), BICUBIC)
    padded = np.pad(np.asarray(whole), ((4, 4), (4, 4), (0, 0)), mode="reflect")
    for left in range(9):
        for top in (0, 3, 17, padded.shape[0] - size):
            crop = padded_crop(image, size, left, top, BICUBIC)
            assert np.array_equal(np.asarray(crop), padded[top : top + size, left : left + size])


def test_extreme_shapes_take_no_more_memory_than_others(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header, rows = struct.pack(">IIBBBBB", 1, 60000, 8, 2, 0, 0, 0), zlib.compress(bytes(4 * 60000), 9)
    (tmp_path / "tall.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    Image.new("RGB", (40000, 2), (90, 90, 90)).save(tmp_path / "wide.jpg")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, shade in (("tall.png", 0), ("wide.jpg", 90)):
        image = decode_rgb(str(tmp_path / name), name)
        pixels = EvalTransform(224, mean=(0, 0, 0), std=(1, 1, 1))(image)
        assert pixels.shape == (3, 224, 224) and np.unique(pixels).tolist() == [np.float32(shade) / np.float32(255)]
        assert np.unique(np.asarray(padded_crop(image, 224, 3, 5, BICUBIC))).tolist() == [shade]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB
