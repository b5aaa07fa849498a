"""predict.py and mindeit.Predictor."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import replace

import numpy as np
import pytest
from exported_files import write_checkpoint
from PIL import Image
from test_validate import run_main

import mindeit
from mindeit.predict import attention_figure, attention_maps
from mindeit.predict.predictor import class_names
from mindeit.weights import checkpoint as checkpoints


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("b/bird.jpg", "a/bird.jpg", "a/cat.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (50, 60, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


def test_predictions_are_named_sorted_and_add_up(predictor, images):
    best = predictor.predict(images / "a" / "cat.png", top_k=10)
    scores = [guess.score for guess in best]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)
    assert [guess.name for guess in best] == [str(guess.label) for guess in best]
    assert len(predictor.predict(images / "a" / "cat.png")) == 5


def test_the_script_says_what_the_predictor_says(run, checkpoint, predictor, images):
    done = run(
        "predict.py",
        "--ckpt_path",
        checkpoint,
        "a",
        "b/bird.jpg",
        "--top_k",
        2,
        "--output",
        "out.json",
        "--attention",
        "maps",
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((images / "out.json").read_text())
    assert [entry["image"] for entry in results] == ["a/bird.jpg", "a/cat.png", "b/bird.jpg"]
    for entry in results:
        want = predictor.predict(images / entry["image"], top_k=2)
        assert [(g["label"], g["name"]) for g in entry["predictions"]] == [(g.label, g.name) for g in want]
        assert [g["score"] for g in entry["predictions"]] == pytest.approx([g.score for g in want], rel=1e-4)
    maps = [entry["attention"] for entry in results]
    assert maps == ["maps/bird_attention.png", "maps/cat_attention.png", "maps/bird_attention_2.png"]
    assert done.stdout.splitlines()[0] == "a/bird.jpg"
    assert f"{results[0]['predictions'][0]['score']:7.2%}" in done.stdout.splitlines()[1]
    with Image.open(images / maps[0]) as drawn:
        assert drawn.width > drawn.height > 100
        assert np.asarray(drawn.convert("RGB")).std() > 20


def test_maps_have_names_of_their_own_and_never_an_images(tmp_path):
    """Twice the same name, a name that looks like another's map, and maps of an earlier run among the images."""
    given = ["a/bird.jpg", "b/bird.jpg", "a/bird_attention.png", "c/bird_attention_2.jpg", "a/cat.jpg"]
    images = [str(tmp_path / name) for name in given]
    names = attention_maps.file_names(images, str(tmp_path / "b" / ".." / "a"))
    assert len(set(map(os.path.realpath, [*names, *images]))) == 2 * len(images)
    assert [os.path.basename(name) for name in names] == [
        "bird_attention_2.png",
        "bird_attention_3.png",
        "bird_attention_attention.png",
        "bird_attention_2_attention.png",
        "cat_attention.png",
    ]
    assert names == attention_maps.file_names(images, str(tmp_path / "b" / ".." / "a"))


def test_drawing_beside_the_images_leaves_them_as_they_are(tmp_path, images, monkeypatch, capsys):
    """One of them has the name that the other's map would take."""
    monkeypatch.chdir(images)
    path = write_checkpoint(tmp_path, "deit_mini_patch8_32_LS")
    (images / "b" / "bird_attention.png").write_bytes((images / "a" / "cat.png").read_bytes())
    before = {image: image.read_bytes() for image in (images / "b").iterdir()}
    assert run_main("predict.py", ["--ckpt_path", str(path), "b", "--attention", "b", "--mode", "1"], monkeypatch) == 0
    assert {image: image.read_bytes() for image in before} == before
    assert len(list((images / "b").iterdir())) == 4


@pytest.mark.parametrize("name", ["$5_$9", "$x$", "a\\frac{", "猫\nb"])
def test_a_class_may_have_any_name(name, tmp_path):
    image = Image.fromarray(np.full((32, 32, 3), 9, np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attention_figure.draw(tmp_path / "a.png", image, {"rollout": np.eye(4)}, (), f"{name}, 3.0 %")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_attention_rollout_follows_the_rule():
    rng = np.random.default_rng(1)
    blocks = [rng.dirichlet(np.ones(6), (3, 6)) for _ in range(2)]  # (heads, tokens, tokens), rows add up to one
    first, second = (0.5 * block.mean(0) + 0.5 * np.eye(6) for block in blocks)
    rolled = attention_maps.rollout(blocks, extra_tokens=2)
    assert rolled.shape == (2, 2)
    assert rolled.ravel() == pytest.approx((second @ first)[0, 2:])
    heads = attention_maps.class_token_heads(blocks[1], extra_tokens=2)
    assert heads.shape == (3, 2, 2)
    assert heads[1].ravel() == pytest.approx(blocks[1][1, 0, 2:])


def test_rollout_ends_with_class_tokens_that_join_late():
    rng = np.random.default_rng(1)
    among, first, second = (rng.dirichlet(np.ones(width), (2, rows)) for rows, width in ((4, 4), (1, 5), (1, 5)))
    mixed = 0.5 * among.mean(0) + 0.5 * np.eye(4)
    one, two = first.mean(0)[0], second.mean(0)[0]
    after_one = 0.5 * one[1:] @ mixed
    after_two = 0.5 * (two[0] * after_one + two[1:] @ mixed) + 0.5 * after_one
    assert attention_maps.rollout([among, first, second], extra_tokens=1).ravel() == pytest.approx(after_two)


def test_a_token_for_each_class_shows_that_class():
    block = np.random.default_rng(1).dirichlet(np.ones(4), (1, 3))
    assert attention_maps.class_token_heads(block, 0, token=2).ravel() == pytest.approx(block[0, 2])
    assert attention_maps.rollout([block], 0, token=2).ravel() == pytest.approx(0.5 * block[0, 2])


@pytest.mark.parametrize("name", ["deit_mini_patch8_32_LS", "cait_mini_patch8_32", "patchconvnet_mini_32"])
def test_attention_of_each_family_is_drawn(name, tmp_path):
    from mindeit.models.registry import build, spec
    from mindeit.predict.describe import draw_attention
    from mindeit.predict.predictor import Predictor
    from mindeit.weights.card import card_for

    predictor = Predictor.of(build(name, num_classes=3), card_for(spec(name), 3))
    pixels = np.random.default_rng(0).standard_normal((3, 32, 32)).astype(np.float32)
    draw_attention(predictor, pixels, tmp_path / "a.png", predictor.best(np.eye(3)[1], 1)[0])
    with Image.open(tmp_path / "a.png") as drawn:
        assert drawn.width > 100 and np.asarray(drawn.convert("RGB")).std() > 20


@pytest.mark.parametrize("heads", [0, 2, 3, 4, 6, 8, 11, 12, 16])
def test_a_picture_has_a_panel_for_each_map_and_no_empty_one(heads):
    drawn = drawn_with(heads)
    panels = [axis for axis in drawn.axes if axis.images]
    names = ["image", "rollout", "mean of heads", *(f"head {number}" for number in range(heads))]
    assert [axis.get_title() for axis in panels] == names
    assert len(drawn.axes) == len(names) + 1  # the colour bar
    lengths = {sum(axis.get_subplotspec().rowspan.start == row for axis in panels[3:]) for row in range(1, heads + 1)}
    assert len(lengths - {0}) <= 1, "rows of heads differ in length"


def drawn_with(heads: int, size: int = 24, title: str = "goldfinch, 93.1 %"):
    maps = np.random.default_rng(0).random((heads + 2, 3, 3))
    image = Image.fromarray(np.full((size, size, 3), 99, np.uint8))
    return attention_figure.figure_of(image, {"rollout": maps[0], "mean of heads": maps[1]}, maps[2:], title)


@pytest.mark.parametrize(("size", "shown"), [(24, 240), (32, 224), (160, 320), (224, 224), (384, 384)])
def test_small_images_are_enlarged_by_a_whole_factor(size, shown):
    for axis in drawn_with(3, size).axes[:-1]:
        assert axis.images[0].get_array().shape[:2] == (shown, shown)


def test_a_map_is_bright_where_attention_is_high_and_leaves_the_image_where_it_is_low():
    grey = np.full((64, 64, 3), 128, np.uint8)
    seen = attention_figure.overlay(Image.fromarray(grey), np.array([[0.1, 0.1], [0.1, 0.7]]))
    assert seen.shape == (64, 64, 3)
    assert (seen >= 0).all() and (seen <= 1).all()
    assert seen[5, 5] == pytest.approx(0.65 * 128 / 255, abs=0.02)  # 0.35 of inferno's black
    assert seen[-1, -1].mean() > 0.6
    flat = attention_figure.overlay(Image.fromarray(grey), np.ones((2, 2)))
    assert flat == pytest.approx(np.broadcast_to(seen[0, 0], flat.shape), abs=0.01)


def test_a_long_title_is_wrapped_inside_the_picture():
    drawn = drawn_with(3, title=", ".join(["indigo bunting"] * 12))
    drawn.draw_without_rendering()  # so the layout is made
    text = drawn._suptitle
    assert text.get_text().count("\n") >= 1
    assert text.get_window_extent().width < drawn.bbox.width
    assert text.get_window_extent().y0 > max(axis.title.get_window_extent().y1 for axis in drawn.axes)


@pytest.mark.parametrize("style", ["grid", "overlay"])
def test_the_title_is_name_and_score_and_the_style_decides_what_is_shown(style, monkeypatch, tmp_path):
    from mindeit.models.registry import build, spec
    from mindeit.predict.describe import draw_attention
    from mindeit.predict.predictor import Prediction, Predictor
    from mindeit.weights.card import card_for

    drawn = []
    monkeypatch.setattr(attention_figure, "draw", lambda path, *parts: drawn.append(attention_figure.figure_of(*parts)))
    predictor = Predictor.of(
        build("deit_mini_patch8_32_LS", num_classes=3), card_for(spec("deit_mini_patch8_32_LS"), 3)
    )
    pixels = np.ones((3, 32, 32), np.float32)
    heads = len(predictor.attentions(pixels)[-1])
    draw_attention(predictor, pixels, tmp_path, Prediction(1, "goldfinch", 0.9312), style)
    assert drawn[0]._suptitle.get_text() == "goldfinch, 93.1 %"
    assert len(drawn[0].axes) - 1 == (3 + heads if style == "grid" else 2)


def test_the_drawn_image_is_the_one_the_model_saw(predictor, images):
    pixels = predictor.pixels(images / "a" / "cat.png")
    seen = attention_maps.unnormalised(pixels, predictor.card.mean, predictor.card.std)
    with Image.open(images / "a" / "cat.png") as image:
        resized = image.resize((48, 40), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(seen), np.asarray(resized.crop((8, 4, 40, 36))))


def test_class_names_come_from_the_checkpoint_or_imagenet(checkpoint):
    _, card = checkpoints.read(checkpoint)
    assert class_names(card) == tuple("0123456789")
    nameless = replace(card, class_names=None)
    assert class_names(nameless)[3] == "class 3"
    imagenet = class_names(replace(nameless, num_classes=1000))
    assert (imagenet[0], imagenet[999]) == ("tench, Tinca tinca", "toilet tissue, toilet paper, bathroom tissue")


def test_a_model_without_attention_says_so(tmp_path):
    from mindspore import nn

    from mindeit.models.registry import spec
    from mindeit.predict.predictor import Predictor
    from mindeit.weights.card import card_for

    predictor = Predictor.of(nn.Identity(), card_for(spec("regnety_160"), 10))
    with pytest.raises(mindeit.UserError, match="regnety_160 has no attention to show"):
        predictor.attentions(np.zeros((3, 224, 224), np.float32))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "command line: images is missing (image files, folders of them, or URLs)"),
        (
            ["a", "--output", "b/../a/cat.png"],
            "command line: --output is b/../a/cat.png, which is read; allowed: another name",
        ),
        (
            ["a", "--attention_style", "overlay"],
            "command line: --attention_style overlay has no effect without --attention FOLDER",
        ),
        (
            ["a", "--attention", "maps", "--attention_style", "rows"],
            "command line: --attention_style is 'rows', allowed: overlay, grid or None",
        ),
        (["/nope.jpg"], "no such image or folder: /nope.jpg"),
        (["broken.jpg"], "cannot read image broken.jpg: not an image (JPEG, PNG, BMP, WebP, TIFF, PPM or GIF)"),
        (["a", "--top_k", "0"], "command line: --top_k is '0', allowed: a whole number, at least 1"),
    ],
)
def test_bad_input_is_one_line(words, message, checkpoint, images, monkeypatch, capsys):
    monkeypatch.chdir(images)
    (images / "broken.jpg").write_text("text")
    assert run_main("predict.py", ["--ckpt_path", str(checkpoint), *words], monkeypatch) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_unreadable_images_can_be_left_out(checkpoint, images, monkeypatch, capsys):
    monkeypatch.chdir(images)
    (images / "a" / "broken.jpg").write_text("text")
    words = ["--ckpt_path", str(checkpoint), "a", "--skip_bad_images", "--mode", "1"]
    assert run_main("predict.py", words, monkeypatch) == 0
    shown = capsys.readouterr()
    assert "left out: cannot read image a/broken.jpg" in shown.err
    assert "1 of 3 images were left out" in shown.err
    assert "a/bird.jpg" in shown.out
    assert "a/cat.png" in shown.out
