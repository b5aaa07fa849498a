"""A page that classifies images in the browser: in headless Chromium, beside the Predictor."""

from __future__ import annotations

import base64
import contextlib
import io
import json

import numpy as np
import pytest
from browser import CHROMIUM, browser, served
from PIL import Image

import mindeit
from mindeit.cli import export
from mindeit.data.transforms import EvalTransform
from mindeit.errors import UserError
from mindeit.export import web_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
SIZES = {"wide.png": (90, 41), "tall.png": (33, 57), "small.png": (20, 20), "large.png": (640, 480)}
READY = "document.getElementById('status')?.textContent === 'Ready'"
STATUS = "document.getElementById('status').textContent"
SCORES = """[...document.querySelectorAll('#scores li')].map(
    (row) => [row.querySelector('.name').textContent, Number(row.dataset.score)])"""
PREPARED = """(async () => {
    const { prepare } = await import('./transform.js');
    const card = await (await fetch('./model.json')).json();
    const bitmap = await createImageBitmap(await (await fetch(NAME)).blob(), { colorSpaceConversion: 'none' });
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext('2d');
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const bytes = new Uint8Array(prepare(data, canvas.width, canvas.height, card).buffer);
    return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
})()"""


def export_script(*words: object) -> str:
    """What export.py prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as ended:
        export.main([str(word) for word in words])
    assert not ended.value.code
    return printed.getvalue()


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    try:
        web_page.runtime_package()
    except UserError as error:
        pytest.skip(f"onnxruntime-web cannot be had: {error}")
    folder = tmp_path_factory.mktemp("web") / "page"
    printed = export_script("--ckpt_path", checkpoint, "--web", folder, "--title", "Which digit?")
    assert f"page: {folder}/index.html" in printed
    rng = np.random.default_rng(0)
    for name, size in {
        "wide.png": (90, 41),
        "tall.png": (33, 57),
        "small.png": (20, 20),
        "large.png": (640, 480),
    }.items():
        levels = rng.integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3), np.uint8)
        Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC).save(folder / name)
    (folder / "broken.png").write_bytes((folder / "wide.png").read_bytes()[:100])
    return folder


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    with served(folder) as address, browser(tmp_path_factory.mktemp("profile")) as page:
        page.size(1000, 900)
        page.open(address)
        page.wait(READY)
        yield page
        assert page.errors == []
        assert {request for request in page.requests if not request.startswith((address, "data:", "blob:"))} == set()


def classified(page, folder, name):
    page.choose("#file", folder / name)
    page.wait(f"{STATUS}.startsWith('{name}: ')")
    return dict(page.value(SCORES))


@pytest.mark.parametrize("name", SIZES)
def test_scores_are_the_predictors(page, folder, name):
    shown = classified(page, folder, name)
    wanted = {guess.name: guess.score for guess in mindeit.Predictor(folder / "model.onnx").predict(folder / name)}
    assert list(shown) == list(wanted)
    assert max(abs(shown[key] - score) for key, score in wanted.items()) < 1e-4


def test_scores_are_those_of_the_checkpoint(page, folder, predictor):
    shown = classified(page, folder, "wide.png")
    assert max(abs(shown[guess.name] - guess.score) for guess in predictor.predict(folder / "wide.png")) < 1e-3


@pytest.mark.parametrize("name", SIZES)
def test_images_are_prepared_to_the_same_bits(page, folder, name):
    card = json.loads((folder / "model.json").read_text())
    size, resize_to = card["image_size"], card["resize_to"]
    transform = EvalTransform(size, size / resize_to, card["mean"], card["std"], card["interpolation"])
    assert transform._resize_to == resize_to
    found = np.frombuffer(base64.b64decode(page.value(PREPARED.replace("NAME", repr(name)))), np.float32)
    with Image.open(folder / name) as image:
        assert np.array_equal(found.reshape(3, size, size), transform(image.convert("RGB")))


def test_a_page_of_eight_bits_gives_its_files_scores(checkpoint, folder, tmp_path):
    eight = tmp_path / "eight"
    export_script("--ckpt_path", checkpoint, "--web", eight, "--precision", "int8", "--unchecked")
    predictor = mindeit.Predictor(eight / "model.onnx")
    with served(eight) as address, browser(tmp_path / "profile") as page:
        page.open(address)
        page.wait(READY)
        shown = classified(page, folder, "large.png")
    assert max(abs(shown[guess.name] - guess.score) for guess in predictor.predict(folder / "large.png")) < 1e-3


def test_attention_is_shown_over_the_image(page, folder):
    classified(page, folder, "large.png")
    sum_of = "document.getElementById('image').toDataURL().length"
    assert page.value("!document.getElementById('attention-control').hidden")
    before = page.value(sum_of)
    page.value("document.getElementById('attention').value = 0")
    page.value("document.getElementById('attention').dispatchEvent(new Event('input'))")
    assert page.value(sum_of) != before
    page.value("document.getElementById('attention').value = 60")


def test_an_image_is_taken_from_a_drop_and_from_the_clipboard(page, folder):
    give = """(async () => {
        const carried = new DataTransfer();
        const blob = await (await fetch('tall.png')).blob();
        carried.items.add(new File([blob], 'NAME', { type: 'image/png' }));
        document.dispatchEvent(new EVENT(KIND, { KEY: carried, cancelable: true }));
    })()"""
    for name, event, kind, key in (
        ("dropped.png", "DragEvent", "'drop'", "dataTransfer"),
        ("pasted.png", "ClipboardEvent", "'paste'", "clipboardData"),
    ):
        script = give.replace("NAME", name).replace("EVENT", event).replace("KIND", kind).replace("KEY", key)
        page.value(script)
        page.wait(f"{STATUS}.startsWith('{name}: ')")


def test_the_camera_is_classified_until_it_is_stopped(page):
    page.value("document.getElementById('camera').click()")
    page.wait(f"{STATUS}.startsWith('camera: ')")
    assert page.value("document.getElementById('camera').textContent") == "Stop the camera"
    page.value("document.getElementById('camera').click()")
    assert page.value("document.getElementById('camera').textContent") == "Use the camera"


def test_what_is_no_image_is_told_and_the_next_one_is_taken(page, folder):
    page.choose("#file", folder / "broken.png")
    page.wait(f"{STATUS} === 'broken.png is not an image that this browser can read'")
    assert page.value("document.getElementById('status').classList.contains('error')")
    classified(page, folder, "tall.png")
    assert not page.value("document.getElementById('status').classList.contains('error')")


def test_keys_and_screen_readers_find_everything(page, folder):
    classified(page, folder, "tall.png")
    page.value("document.activeElement.blur()")
    reached = []
    for _ in range(3):
        page.press("Tab")
        reached.append(page.value("document.activeElement.id"))
    assert reached == ["choose", "camera", "attention"]
    share = int(page.value("document.getElementById('attention').value"))
    page.press("ArrowRight")
    assert int(page.value("document.getElementById('attention').value")) == share + 1
    assert page.value("document.querySelector('label[for=attention]').textContent") == "Attention"
    assert page.value("document.getElementById('spoken').textContent").endswith(" %")
    assert page.value("document.documentElement.lang") == "en"


def test_a_phone_shows_it_without_scrolling_sideways(page, folder):
    classified(page, folder, "large.png")
    page.size(360, 740)
    assert page.value("document.documentElement.scrollWidth") <= 360
    least = page.value("Math.min(...[...document.querySelectorAll('button')].map((one) => one.offsetHeight))")
    assert least >= 44
    page.size(1000, 900)


def test_weights_take_half_the_room(folder, checkpoint, tmp_path):
    export_script("--ckpt_path", checkpoint, "--format", "ONNX", "--output", tmp_path / "whole.onnx")
    assert (folder / "model.onnx").stat().st_size < 0.6 * (tmp_path / "whole.onnx").stat().st_size


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "command line: give --format MINDIR, ONNX or AIR for a file, or --web FOLDER for a page"),
        (
            ["--web", "page", "--format", "ONNX"],
            "command line: give --format MINDIR, ONNX or AIR for a file, or --web FOLDER for a page",
        ),
        (["--format", "ONNX", "--title", "x"], "command line: --title has no effect without --web FOLDER"),
        (
            ["--web", "page", "--batch", "1"],
            "command line: --batch has no effect with --web, where the page decides it",
        ),
        (
            ["--web", "page", "--precision", "fp16"],
            "command line: --precision is fp16, in which browsers do not compute; allowed: fp16-weights, fp32, int8",
        ),
        (["--web", "full"], "command line: --web is full, which exists; allowed: a new or an empty folder"),
        (
            ["--format", "MINDIR", "--precision", "fp16-weights"],
            "command line: --precision fp16-weights is for --format ONNX, not MINDIR",
        ),
    ],
)
def test_what_a_page_cannot_be_is_told_first(words, message, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "own.txt").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        export.main(["--ckpt_path", str(checkpoint), *words])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert (tmp_path / "full" / "own.txt").read_text() == "mine"
