"""What `mindeit.data.scan` and ``mindeit check`` find in a folder."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from mindeit.cli import main as console
from mindeit.data import Processes, Threads, open_source
from mindeit.data.class_folders import open_parts
from mindeit.data.duplicates import ALIKE, alike_groups, same_groups, thumbnail
from mindeit.data.scan import scan
from mindeit.errors import UserError

PHOTOS = sorted((ROOT / "tests" / "golden" / "data_photos").glob("*.jpg"))


def called(capsys, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        console.main(["check", *map(str, words)])
    return (ended.value.code, *capsys.readouterr())


def noise(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def faulty(tmp_path) -> Path:
    """Twelve sound images, and one of each fault."""
    for number in range(12):
        place = tmp_path / "data" / ("val" if number % 3 == 0 else "train") / ("rose" if number % 2 else "tulip")
        place.mkdir(parents=True, exist_ok=True)
        noise(number).save(place / f"{number}.png")
    data = tmp_path / "data"
    noise(1).save(data / "val" / "rose" / "same pixels.bmp")
    noise(2).resize((36, 30)).save(data / "val" / "rose" / "smaller.jpg", quality=90)
    noise(50, 31, 90).convert("L").save(data / "train" / "rose" / "narrow.png")
    (data / "train" / "tulip" / "empty.jpg").touch()
    whole = io.BytesIO()
    noise(60).save(whole, "JPEG")
    (data / "train" / "tulip" / "cut.jpg").write_bytes(whole.getvalue()[:-200])
    return data


def test_each_fault_is_found(faulty):
    report = scan(open_parts(str(faulty)), shown=False)
    assert report.parts == {"train": 11, "val": 6}
    assert report.classes == {"rose": {"train": 5, "val": 4}, "tulip": {"train": 6, "val": 2}}
    assert {Path(bad.file).name: bad.reason for bad in report.unreadable} == {
        "empty.jpg": "the file is empty",
        "cut.jpg": report.unreadable[0].reason,
    }
    assert [(Path(image.file).name, image.width, image.height) for image in report.small] == [
        ("narrow.png", 31, 90),
        ("smaller.jpg", 36, 30),
    ]
    assert report.grey == 1
    assert report.sizes == ((48, 40, 13), (31, 90, 1), (36, 30, 1))
    (same,), (alike,) = report.same, report.alike
    assert [Path(image.file).name for image in same.images] == ["1.png", "same pixels.bmp"]
    assert [Path(image.file).name for image in alike.images] == ["2.png", "smaller.jpg"]
    assert (same.leak, same.contradiction) == (True, False)
    assert (alike.leak, alike.contradiction) == (True, True)
    assert report.leaked == 2


def test_threads_and_processes_find_the_same(faulty):
    parts = open_parts(str(faulty))
    processes = Processes(2)
    assert scan(parts, shown=False) == scan(parts, workers=Threads(3), shown=False)
    assert scan(parts, shown=False) == scan(parts, workers=processes, shown=False)
    processes.close()


def test_a_run_that_does_not_skip_stops_at_what_cannot_be_read(faulty):
    report = scan(open_parts(str(faulty)), shown=False)
    with pytest.raises(UserError, match=r"2 of 17 images cannot be read, the first is .*cut.jpg: .*--skip_bad_images"):
        report.refuse_unreadable()
    sound = scan({"val": open_source("digits", None, "val")}, shown=False)
    sound.refuse_unreadable()
    assert json.loads(json.dumps(sound.as_json()))["parts"] == {"val": 360}


def variants(photo: Image.Image) -> list[Image.Image]:
    """What becomes of a picture on its way through the internet."""
    width, height = photo.size
    packed = io.BytesIO()
    photo.save(packed, "JPEG", quality=40)
    return [
        Image.open(packed).convert("RGB"),
        photo.resize((width // 2, height // 2), Image.Resampling.BICUBIC),
        photo.resize((200, 200)),
        photo.convert("L").convert("RGB"),
        photo.crop((2, 2, width - 2, height - 2)),
    ]


def test_photographs_are_alike_to_their_copies_alone():
    photos = [Image.open(path).convert("RGB") for path in PHOTOS]
    images = [version for photo in photos for version in (photo, *variants(photo))]
    groups = alike_groups(np.stack(list(map(thumbnail, images))))
    assert groups.reshape(len(photos), -1).tolist() == [[6 * number] * 6 for number in range(len(photos))]


def test_keys_lose_no_pair_that_comparing_all_would_find():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (1000, 16), np.uint8).repeat(16, 1)  # stripes
    copies = (pictures[:200].astype(float) + rng.normal(0, 8, (200, 256))).clip(0, 255).astype(np.uint8)
    thumbnails = np.concatenate([pictures, copies])
    product = np.corrcoef(thumbnails.astype(np.float64))
    groups, wanted = alike_groups(thumbnails), np.arange(1200)
    for later, earlier in zip(*np.nonzero(np.tril(product >= ALIKE, -1))):
        wanted[later] = min(wanted[later], wanted[earlier])
    assert (wanted != np.arange(1200)).sum() > 150
    assert (groups == wanted).mean() > 0.999


def test_pictures_that_differ_by_noise_are_one_group_and_blank_ones_are_none():
    rng = np.random.default_rng(0)
    scene = np.arange(256) % 16 * 10 + rng.integers(0, 4, (3000, 256))
    blank = 200 + rng.integers(0, 2, (50, 256))
    groups = alike_groups(np.concatenate([scene, blank]).astype(np.uint8))
    assert set(groups[:3000]) == {0}
    assert groups[3000:].tolist() == list(range(3000, 3050))
    assert alike_groups(np.zeros((0, 256), np.uint8)).tolist() == []


def test_equal_rows_get_the_number_of_the_first():
    assert same_groups(np.array([[1, 2], [0, 0], [1, 2], [0, 0], [2, 1]], np.uint8)).tolist() == [0, 1, 0, 1, 4]


def test_the_command_tells_and_writes_what_was_found(faulty, capsys, tmp_path):
    code, out, err = called(capsys, faulty, "--output", tmp_path / "data.json", "--num_parallel_workers", 2)
    lines = out.splitlines()
    assert code == 1
    assert err.startswith("looking at 17 images")
    assert lines[:4] == [
        "images      17 (train 11, val 6)",
        "classes     2, from 'rose' (5) to 'tulip' (6), 1 to 1.2",
        "sizes       48x40 (13), 31x90 (1), 36x30 (1)",
        "grey        1 without colour",
    ]
    train, val = faulty / "train", faulty / "val"
    assert f"  {train}/tulip/empty.jpg: the file is empty" in lines
    assert f"  {train}/rose/1.png = {val}/rose/same pixels.bmp (in train, val)" in lines
    assert f"  {train}/tulip/2.png = {val}/rose/smaller.jpg (in train, val, classes rose, tulip)" in lines
    assert lines[-2:] == ["leak        2 images of val are in another part too", "2 of 17 images cannot be read"]
    written = json.loads((tmp_path / "data.json").read_text())
    assert written["leaked"] == 2
    assert written["same"][0]["images"][1] == {
        "file": f"{val}/rose/same pixels.bmp",
        "class_name": "rose",
        "part": "val",
    }


def test_a_folder_of_classes_is_one_part(faulty, capsys, monkeypatch):
    (faulty / "val" / "rose" / "same pixels.bmp").unlink()
    monkeypatch.chdir(faulty / "val")
    code, out, _ = called(capsys, ".")
    assert code == 0
    assert out.splitlines()[0] == "images      5"
    assert out.splitlines()[-1] == "all 5 images can be read"
    assert "leak" not in out


def test_folders_that_are_no_part_are_named(faulty, capsys):
    (faulty / "test").mkdir()
    noise(0).save(faulty / "test" / "unlabelled.png")
    (faulty / "notes").mkdir()
    code, out, err = called(capsys, faulty)
    assert err.splitlines()[:2] == [f"note: not looked at in {faulty}: notes, test", "looking at 17 images"]
    assert out.startswith("images      17 (train 11, val 6)")


def test_a_flat_folder_with_labels_is_one_part(capsys, tmp_path):
    noise(0).save(tmp_path / "a.png")
    noise(0).save(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,cat\nb.png,dog\n")
    code, out, _ = called(capsys, tmp_path)
    assert (code, "same        1 group, 1 with several classes" in out.splitlines()) == (0, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((), "{} holds nothing; expected a folder for each class"),
        (
            ("a.png", "b.png", "notes.md"),
            "{} holds 2 images and 1 other file and no folders; expected a folder for each",
        ),
        (("rose/a.txt",), "no images in {}/rose"),
        (None, "{} does not exist; expected a folder for each class, or train/ and val/ (and test/) with these"),
    ],
)
def test_another_folder_is_refused_in_a_line(content, message, capsys, tmp_path):
    folder = tmp_path / "data"
    for name in content or ():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    if content == ():
        folder.mkdir()
    code, _, err = called(capsys, folder)
    assert code == 2
    assert err.startswith(f"error: {message.format(folder)}")
    assert len(err.splitlines()) == 1


def test_one_folder_is_asked_for(capsys):
    assert called(capsys)[2].startswith("error: command line: folder is missing (a folder for each class")
    assert "folder is '[a, b]', allowed: one line of text" in called(capsys, "a", "b")[2]


def test_it_needs_only_a_base_install(faulty):
    code = f"""
import sys
for name in ("mindspore", "torch", "sklearn", "scipy", "matplotlib", "mindcv", "onnx", "simplejpeg"):
    sys.modules[name] = None
from mindeit.cli.main import main
main(["check", {str(faulty)!r}])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "2 of 17 images cannot be read"
