"""Random augmentation equals timm's given the same numbers, and follows its distributions given a seed."""

from __future__ import annotations

import json
import pathlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from mindeit.data import TrainTransform
from mindeit.data.augment_ops import OPS, WarpStyle, apply_op, strength
from mindeit.data.auto_augment import INCREASING_OPS, POLICIES, auto_augment
from mindeit.data.color import draw_jitter, draw_three_augment, jitter, three_augment
from mindeit.data.crops import draw_crop_box, draw_padded_corner, middle_box, padded_crop, resized_crop
from mindeit.data.random_erasing import RandomErasing, draw_erase_boxes
from mindeit.errors import UserError

GOLDEN = pathlib.Path(__file__).parent / "golden"
REFERENCE = json.loads((GOLDEN / "data_reference.json").read_text())
PIXELS = np.load(GOLDEN / "data_augment_ops.npz")
BICUBIC, FILL = Image.Resampling.BICUBIC, (124, 116, 104)


def image(width=120, height=90, seed=0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("key", [key for key in PIXELS.files if key != "input"])
def test_operations_equal_timm_pixel_for_pixel(key):
    name, tail = key.rsplit("_", 1)
    args = strength(name, float(tail[1:]), -1 if tail[0] == "-" else 1)
    result = apply_op(name, args, Image.fromarray(PIXELS["input"]))
    assert np.array_equal(np.asarray(result), PIXELS[key])


def test_strengths_equal_timm_at_every_level():
    for key, rows in REFERENCE["level_args"].items():
        for level, expected in zip(REFERENCE["levels"], rows):
            assert strength(key[:-1], level, -1 if key[-1] == "-" else 1) == pytest.approx(expected), (key, level)


def test_magnitudes_are_clipped_to_0_and_10():
    assert strength("SolarizeAdd", 12.0) == strength("SolarizeAdd", 10.0) == (110,)
    assert strength("SolarizeAdd", -3.0) == (0,)


@pytest.mark.parametrize("size", [(224, 224), (31, 50), (50, 31), (5, 5), (1, 9), (9, 1), (2, 2)])
def test_quick_shears_and_translations_equal_pillows_bit_for_bit(size):
    source, rng = image(*size), np.random.default_rng(0)
    for name, limit in (("ShearX", 0.3), ("ShearY", 0.3), ("TranslateXRel", 0.45), ("TranslateYRel", 0.45)):
        for value in (0.0, limit, -limit, limit / 2, 0.25, *rng.uniform(-limit, limit, 12)):
            matrix = {
                "ShearX": (1, value, 0, 0, 1, 0),
                "ShearY": (1, 0, 0, value, 1, 0),
                "TranslateXRel": (1, 0, value * size[0], 0, 1, 0),
                "TranslateYRel": (1, 0, 0, 0, 1, value * size[1]),
            }[name]
            expected = source.transform(size, Image.Transform.AFFINE, matrix, resample=BICUBIC, fillcolor=FILL)
            assert apply_op(name, (value,), source).tobytes() == expected.tobytes(), (name, value)


def test_posterizing_to_0_bits_is_black():
    assert not np.asarray(apply_op("PosterizeIncreasing", strength("PosterizeIncreasing", 10), image())).any()


def test_increasing_set_is_timms():
    assert set(INCREASING_OPS) == {key[:-1] for key in REFERENCE["level_args"]} and len(INCREASING_OPS) == 15


def test_policies_hold_25_pairs_of_known_operations():
    for policy in POLICIES.values():
        assert len(policy) == 25
        assert {len(pair) for pair in policy} == {2}
        assert all(step.name in OPS and 0 <= step.probability <= 1 for pair in policy for step in pair)


def test_rand_augment_draws_two_operations_with_probability_one_half():
    augment, rng = auto_augment("rand-m9-mstd0.5-inc1", (BICUBIC,), FILL), np.random.default_rng(0)
    draws = [augment.draw(rng) for _ in range(6000)]
    share = Counter(len(drawn) for drawn in draws)
    assert [share[k] / 6000 for k in range(3)] == pytest.approx([0.25, 0.5, 0.25], abs=0.025)
    names = Counter(name for drawn in draws for name, _, _ in drawn)
    assert set(names) == set(INCREASING_OPS) and min(names.values()) > 320  # 400 each
    shears = [args[0] for drawn in draws for name, args, _ in drawn if name == "ShearX"]
    assert np.mean(np.array(shears) > 0) == pytest.approx(0.5, abs=0.08)
    assert np.mean(np.abs(shears)) == pytest.approx(0.27, abs=0.002)
    assert np.std(np.abs(shears)) == pytest.approx(0.5 * 0.03, abs=0.002)


def test_mindcv_spelling_means_the_same():
    for seed in range(20):
        a, b = (
            auto_augment(spec, (BICUBIC,), FILL)(image(), np.random.default_rng(seed))
            for spec in ("rand-m9-mstd0.5-inc1", "randaug-m9-mstd0.5-inc1")
        )
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("spec", ["rand-m9-mstd0.5-inc1", "rand-m5-n3", "original", "v0", "original-mstd0.5"])
def test_every_policy_keeps_size_and_mode(spec):
    augment, rng = auto_augment(spec, (BICUBIC, Image.Resampling.BILINEAR), FILL), np.random.default_rng(1)
    for _ in range(60):
        result = augment(image(), rng)
        assert (result.size, result.mode) == ((120, 90), "RGB")


@pytest.mark.parametrize("spec", ["rand-m11", "rand-x3", "ranad-m9", "rand-m9-n0", "rand-inc2", "v1", "rand-m"])
def test_unknown_policies_are_one_line(spec):
    with pytest.raises(UserError, match=f"auto_augment is '{spec}'.*allowed: rand-m9-mstd0.5-inc1") as error:
        auto_augment(spec, (BICUBIC,), FILL)
    assert "\n" not in str(error.value)


def test_random_crops_follow_the_reference_distribution():
    expected, rng = REFERENCE["random_resized_crop"], np.random.default_rng(0)
    width, height = expected["image_wh"]
    boxes = np.array([draw_crop_box(rng, width, height) for _ in range(20000)], float)
    left, top, w, h = boxes.T
    assert (left >= 0).all() and (left + w <= width).all() and (top + h <= height).all()
    for values, key in ((w * h / (width * height), "area_fraction"), (w / h, "width_over_height")):
        assert np.quantile(values, expected["quantiles"]) == pytest.approx(expected[key], abs=0.015), key
    room = height - h
    quantiles = np.quantile(top[room > 0] / room[room > 0], expected["quantiles"])
    assert quantiles == pytest.approx(expected["top_fraction"], abs=0.02)


def test_a_image_too_narrow_for_any_box_is_cut_in_the_middle():
    assert middle_box(10, 1000, (0.75, 4 / 3)) == (0, (1000 - 13) // 2, 10, 13)
    assert middle_box(1000, 10, (0.75, 4 / 3)) == ((1000 - 13) // 2, 0, 13, 10)
    assert draw_crop_box(np.random.default_rng(0), 1, 1000)[2] == 1


def test_the_crop_filter_does_not_see_outside_the_box():
    pixels = np.zeros((50, 50, 3), np.uint8)
    pixels[10:30, 10:30] = 200
    inside = resized_crop(Image.fromarray(pixels), (10, 10, 20, 20), 64, BICUBIC)
    assert (np.asarray(inside) == 200).all()


def test_simple_crop_mirrors_four_pixels():
    source = image(64, 32)
    expected = np.pad(np.asarray(source), ((4, 4), (4, 4), (0, 0)), mode="reflect")
    assert np.array_equal(np.asarray(padded_crop(source, 32, 3, 7, BICUBIC)), expected[7:39, 3:35])
    corners = {draw_padded_corner(np.random.default_rng(seed), 64, 32, 32) for seed in range(3000)}
    lefts, tops = zip(*corners)
    assert (min(lefts), max(lefts), min(tops), max(tops)) == (0, 40, 0, 8)


def test_erased_boxes_follow_the_reference_distribution():
    expected, rng = REFERENCE["random_erasing"], np.random.default_rng(0)
    height, width = expected["image"]
    boxes = np.array([box for _ in range(6000) for box in draw_erase_boxes(rng, height, width)], float)
    h, w = boxes[:, 2], boxes[:, 3]
    areas = np.quantile(h * w / (height * width), expected["quantiles"])
    assert areas == pytest.approx(expected["area_fraction"], abs=0.012)
    assert np.quantile(h / w, expected["quantiles"]) == pytest.approx(expected["height_over_width"], rel=0.1)


@pytest.mark.parametrize(("mode", "distinct"), [("pixel", 3000), ("rand", 3), ("const", 1)])
def test_erasing_fills_with_noise_a_colour_or_black(mode, distinct):
    pixels = np.full((3, 112, 112), 9.0, np.float32)
    RandomErasing(1.0, mode)(pixels, np.random.default_rng(3))
    erased = pixels[pixels != 9.0]
    assert erased.size >= 3 * 0.018 * 112 * 112 and pixels.dtype == np.float32
    values = len(np.unique(erased))
    assert values >= distinct if mode == "pixel" else values == distinct
    if mode == "const":
        assert not erased.any()


def test_erasing_respects_its_probability_and_count():
    rng, hit = np.random.default_rng(0), 0
    for _ in range(2000):
        pixels = np.ones((3, 16, 16), np.float32)
        RandomErasing(0.25, "const")(pixels, rng)
        hit += bool((pixels == 0).any())
    assert hit / 2000 == pytest.approx(0.25, abs=0.04)
    counts = Counter(len(draw_erase_boxes(rng, 112, 112, (1, 3))) for _ in range(3000))
    assert [counts[k] / 3000 for k in (1, 2, 3)] == pytest.approx([1 / 3] * 3, abs=0.05)


def test_unknown_erase_mode_is_one_line():
    with pytest.raises(UserError, match="random erasing mode is 'pixl'; allowed: pixel, rand, const .*'pixel'"):
        RandomErasing(0.25, "pixl")


def test_three_augment_picks_each_a_third_and_matches_pillow():
    rng, source = np.random.default_rng(0), image()
    names = Counter(draw_three_augment(rng)[0] for _ in range(3000))
    assert [names[name] / 3000 for name in ("gray", "solarize", "blur")] == pytest.approx([1 / 3] * 3, abs=0.04)
    gray = np.asarray(three_augment(source, "gray", 1.0))
    assert (gray == np.asarray(source.convert("L"))[..., None]).all()
    assert three_augment(source, "solarize", 1.0).tobytes() == ImageOps.solarize(source).tobytes()


def test_jitter_applies_its_factors_in_the_drawn_order():
    source = image()
    expected = ImageEnhance.Brightness(ImageEnhance.Color(source).enhance(0.8)).enhance(1.2)
    assert jitter(source, [("saturation", 0.8), ("brightness", 1.2)]).tobytes() == expected.tobytes()
    rng = np.random.default_rng(0)
    draws = [draw_jitter(rng, 0.3) for _ in range(3000)]
    assert len({tuple(name for name, _ in drawn) for drawn in draws}) == 6
    factors = np.array([factor for drawn in draws for _, factor in drawn])
    assert factors.min() == pytest.approx(0.7, abs=0.001) and factors.max() == pytest.approx(1.3, abs=0.001)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"auto_augment": "3-augment", "simple_crop": True},
        {"auto_augment": None},
        {"auto_augment": "original", "interpolation": "random"},
        {"hflip": 0.0},
    ],
)
def test_the_whole_pipeline_depends_on_the_generator_alone(options):
    transform = TrainTransform(48, **options)
    a, b, c = (transform(image(), np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert a.shape == (3, 48, 48) and a.dtype == np.float32 and np.isfinite(a).all()
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_half_of_the_images_are_flipped():
    transform = TrainTransform(8, scale=(1.0, 1.0), ratio=(1.0, 1.0), auto_augment=None, color_jitter=0.0)
    source = image(8, 8)
    plain, flips = np.asarray(source), 0
    for seed in range(1000):
        result = np.asarray(transform.augment(source, np.random.default_rng(seed)))
        flips += not np.array_equal(result, plain)
        assert np.array_equal(result, plain) or np.array_equal(result, plain[:, ::-1])
    assert flips / 1000 == pytest.approx(0.5, abs=0.06)


def test_default_fill_is_the_imagenet_mean():
    assert WarpStyle().fill == FILL


def test_vertical_flips_come_as_often_as_asked_and_change_no_other_draw():
    quiet = {"hflip": 0, "auto_augment": None, "color_jitter": 0, "erase_probability": 0}
    quiet.update(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    source = image(32, 32)
    upright = np.asarray(source)
    for vflip, expected in ((0, upright), (1, upright[::-1])):
        done = TrainTransform(32, vflip=vflip, **quiet).augment(source, np.random.default_rng(0))
        assert np.array_equal(np.asarray(done), expected)
    rng, half = np.random.default_rng(0), TrainTransform(32, vflip=0.5, **quiet)
    flipped = [not np.array_equal(np.asarray(half.augment(source, rng)), upright) for _ in range(400)]
    assert 160 < sum(flipped) < 240


def test_mindcvs_names_of_policies_are_known():
    given = {"autoaug": "original", "autoaug-mstd0.5": "original-mstd0.5"}
    for theirs, ours in given.items():
        drawn = [auto_augment(spec, (BICUBIC,), FILL).draw(np.random.default_rng(3)) for spec in (theirs, ours)]
        assert drawn[0] == drawn[1]
    assert TrainTransform(32, auto_augment="3a")._three_augment
    with pytest.raises(UserError, match="auto_augment is 'augmix'; allowed: rand-m9"):
        auto_augment("augmix", (BICUBIC,), FILL)
