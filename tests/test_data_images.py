"""What damaged images get: one line that names them, never a crash or a hang."""

from __future__ import annotations

import io
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mindeit.data import decode_rgb, images, list_images
from mindeit.errors import UserError

PHOTOS = pathlib.Path(__file__).parent / "golden" / "data_photos"


def jpeg(width=64, height=48, seed=0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


def png_bomb(side: int) -> bytes:
    """A PNG of a few bytes whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"this is no image\n" * 40, "not an image (JPEG, PNG,"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image (JPEG, PNG,"),
        (jpeg()[:-600], "truncated"),
        (jpeg()[:150], ""),
        (png_bomb(100000), "decompression bomb"),
        (png_bomb(12000), "decompression bomb"),
    ],
    ids=["empty", "text", "postscript", "truncated", "header only", "bomb", "small bomb"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, content, reason):
    path = tmp_path / "bad image.JPEG"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        decode_rgb(str(path), str(path))
    assert str(error.value).startswith(f"cannot read image {path}: ") and "\n" not in str(error.value)
    assert reason in str(error.value) and " 0x" not in str(error.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match="gone.jpg: No such file or directory"):
        decode_rgb(str(tmp_path / "gone.jpg"), str(tmp_path / "gone.jpg"))
    with pytest.raises(UserError, match="Is a directory"):
        decode_rgb(str(tmp_path), str(tmp_path))


def test_a_png_named_jpeg_is_read():
    file = io.BytesIO()
    Image.new("RGB", (5, 4), (1, 2, 3)).save(file, "PNG")
    assert decode_rgb(file, "x.JPEG").getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.filterwarnings("ignore")
def test_500_mutated_files_give_a_image_or_one_line():
    rng = np.random.default_rng(0)
    whole = []
    for kind in ("JPEG", "PNG", "BMP", "WEBP", "TIFF"):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(file, kind)
        whole.append(file.getvalue())
    outcomes = {"image": 0, "error": 0}
    for number in range(500):
        content = bytearray(whole[number % len(whole)])
        for place in rng.integers(len(content) if number % 2 else min(64, len(content)), size=1 + number % 9):
            content[place] = rng.integers(256)
        if number % 3 == 0:
            content = content[: rng.integers(len(content))]
        try:
            image = decode_rgb(io.BytesIO(bytes(content)), f"file {number}")
            assert image.mode == "RGB" and len(image.tobytes()) == 3 * image.width * image.height
            outcomes["image"] += 1
        except UserError as error:
            assert str(error).startswith(f"cannot read image file {number}: ") and "\n" not in str(error)
            outcomes["error"] += 1
    assert min(outcomes.values()) > 100


def outcome(content: bytes) -> object:
    try:
        image = decode_rgb(io.BytesIO(content), "it")
        return image.mode, image.size, image.tobytes()
    except UserError as error:
        return str(error)


def by_pillow(content: bytes, monkeypatch: pytest.MonkeyPatch) -> object:
    with monkeypatch.context() as patch:
        patch.setattr(images, "_QUICK_JPEG", False)
        return outcome(content)


needs_quick_jpeg = pytest.mark.skipif(
    not images._QUICK_JPEG, reason="simplejpeg is not installed, or Pillow has another JPEG library"
)


@needs_quick_jpeg
@pytest.mark.parametrize("name", ["chelsea_451x300.jpg", None])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_quick_jpegs_are_pillows_bit_for_bit(name, mode, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (61, 45, 3), dtype=np.uint8)
    image = Image.open(PHOTOS / name) if name else Image.fromarray(noise)
    for quality in (1, 50, 90, 100):
        for sampling in ("4:4:4", "4:2:2", "4:2:0"):
            for progressive in (False, True):
                file = io.BytesIO()
                image.convert(mode).save(file, "JPEG", quality=quality, subsampling=sampling, progressive=progressive)
                assert outcome(file.getvalue()) == by_pillow(file.getvalue(), monkeypatch)
                assert (images._decode_jpeg(file) is None) == (mode == "CMYK")


@needs_quick_jpeg
def test_uncommon_jpegs_are_pillows_bit_for_bit(monkeypatch):
    image = Image.open(PHOTOS / "chelsea_451x300.jpg")
    for options in ({"keep_rgb": True}, {"restart_marker_blocks": 3}, {"comment": b"x" * 9}, {"optimize": True}):
        file = io.BytesIO()
        image.save(file, "JPEG", **options)
        assert images._decode_jpeg(file) is not None
        assert outcome(file.getvalue()) == by_pillow(file.getvalue(), monkeypatch)


@needs_quick_jpeg
@pytest.mark.filterwarnings("ignore")
def test_2000_damaged_jpegs_fare_as_with_pillow_alone(monkeypatch):
    rng = np.random.default_rng(1)
    quick = 0
    for number in range(2000):
        content = bytearray(jpeg(24, 20, number % 7))
        for place in rng.integers(len(content), size=1 + number % 3):
            content[place] = rng.integers(256)
        content = bytes(content[: rng.integers(len(content))] if number % 10 == 0 else content)
        assert outcome(content) == by_pillow(content, monkeypatch)
        quick += images._decode_jpeg(io.BytesIO(content)) is not None
    assert 200 < quick < 1900


@needs_quick_jpeg
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_jpeg_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 - 1)
    assert images._decode_jpeg(io.BytesIO(jpeg())) is None
    with pytest.raises(UserError, match="64x48 pixels are more than 3071"):
        decode_rgb(io.BytesIO(jpeg()), "it")


def test_list_images_takes_files_and_folders_sorted(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).write_bytes(jpeg())
    found = list_images([str(tmp_path), str(tmp_path / "b.JPG")])
    assert found == [str(tmp_path / name) for name in ("a.png", "b.JPG", "b.JPG")]


def test_list_images_names_what_is_missing(tmp_path):
    (tmp_path / "bird.jpg").write_bytes(jpeg())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no such image or folder: .*brid.jpg.*nearest: 'bird.jpg'"):
        list_images([str(tmp_path / "brid.jpg")])
    with pytest.raises(UserError, match="no images in folder .*empty"):
        list_images([str(tmp_path / "empty")])
