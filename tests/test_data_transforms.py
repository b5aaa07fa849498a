"""Evaluation preprocessing equals torchvision's to the last bit."""

from __future__ import annotations

import io
import json
import pathlib
import zlib

import numpy as np
import pytest
from PIL import Image

from mindeit.data import EvalTransform, decode_rgb
from mindeit.data.transforms import Normalize
from mindeit.errors import UserError

GOLDEN = pathlib.Path(__file__).parent / "golden"
REFERENCE = json.loads((GOLDEN / "data_reference.json").read_text())


def crc(pixels: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(pixels))


@pytest.mark.parametrize(("name", "size", "ratio", "expected"), REFERENCE["photos"])
def test_photos_equal_torchvision_bit_for_bit(name, size, ratio, expected):
    path = str(GOLDEN / "data_photos" / name)
    pixels = EvalTransform(size, ratio)(decode_rgb(path, path))
    assert pixels.dtype == np.float32 and pixels.shape == (3, size, size)
    assert crc(pixels) == expected


@pytest.mark.parametrize(("width", "height", "size", "ratio", "expected"), REFERENCE["odd_shapes"])
def test_odd_shapes_equal_torchvision_bit_for_bit(width, height, size, ratio, expected):
    noise = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert crc(EvalTransform(size, ratio)(Image.fromarray(noise))) == expected


def test_normalisation_equals_torch_for_every_level():
    torch = pytest.importorskip("torch")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    column = [torch.tensor(values).reshape(3, 1, 1) for values in (mean, std)]
    expected = (torch.from_numpy(levels).permute(2, 0, 1).to(torch.float32).div(255) - column[0]) / column[1]
    assert np.array_equal(Normalize(mean, std)(Image.fromarray(levels)), expected.numpy())


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "I;16", "LA", "1", "RGB"])
def test_every_mode_becomes_the_rgb_that_pillow_makes(mode):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(noise).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG" if mode == "CMYK" else "PNG")
    expected = np.asarray(Image.open(file).convert("RGB"))
    read = decode_rgb(file, "image")
    assert read.mode == "RGB" and np.array_equal(np.asarray(read), expected)
    assert EvalTransform(32)(read).shape == (3, 32, 32)


def test_exif_orientation_is_ignored(tmp_path):
    image = Image.new("RGB", (60, 40), (200, 10, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert decode_rgb(str(tmp_path / "turned.jpg"), "x").size == (60, 40)


def test_progressive_jpeg_reads_like_a_baseline_one(tmp_path):
    image = Image.open(GOLDEN / "data_photos" / "chelsea_451x300.jpg")
    for name, progressive in (("a.jpg", False), ("b.jpg", True)):
        image.save(tmp_path / name, quality=90, progressive=progressive)
    a, b = (np.asarray(decode_rgb(str(tmp_path / name), name)) for name in ("a.jpg", "b.jpg"))
    assert np.array_equal(a, b)


def test_wrong_options_are_one_line():
    with pytest.raises(UserError, match=r"crop_pct is 0; it must be above 0"):
        EvalTransform(224, 0)
    with pytest.raises(UserError, match=r"interpolation is 'bicubc'; allowed: .*nearest: 'bicubic'"):
        EvalTransform(224, interpolation="bicubc")
