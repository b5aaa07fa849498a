"""Mixup and CutMix equal timm's given lambda and box; their draws follow its distributions."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from mindeit.data import Mixing
from mindeit.data.mixing import Mix, cutmix, mix_images, mix_targets
from mindeit.errors import UserError

GOLDEN = pathlib.Path(__file__).parent / "golden"
REFERENCE = json.loads((GOLDEN / "data_reference.json").read_text())
ARRAYS = np.load(GOLDEN / "data_mixing_sampler.npz")


def array(key: str) -> np.ndarray:
    return ARRAYS[key.replace("/", "|")]


@pytest.mark.parametrize("case", REFERENCE["mixup"], ids=lambda case: case["key"])
def test_mixing_equals_timm(case):
    images, labels = array("mixup/images").copy(), array("mixup/labels")
    box = case.get("box_yl_yh_xl_xh")
    mix = Mix(case.get("lam_used", case["lam"]), tuple(box) if box else None)
    mixed = mix_images(images, [mix] * len(images))
    targets = mix_targets(labels, 10, [mix.lam] * len(labels), case["smoothing"])
    assert mixed == pytest.approx(array(case["key"] + "/x"), abs=1e-6)
    assert targets == pytest.approx(array(case["key"] + "/t"), abs=1e-6)
    assert mixed.dtype == targets.dtype == np.float32


@pytest.mark.parametrize(
    "case", [case for case in REFERENCE["mixup"] if "box_yl_yh_xl_xh" in case], ids=lambda case: case["key"]
)
def test_boxes_equal_timm(case):
    mix = cutmix(case["lam"], *array("mixup/images").shape[2:], *case["centre_yx"])
    assert list(mix.box) == case["box_yl_yh_xl_xh"] and mix.lam == pytest.approx(case["lam_used"])


def test_draws_follow_the_reference_distribution():
    mixing, rng, expected = Mixing(10, mode="elem"), np.random.default_rng(0), REFERENCE["mixup_draws"]
    draws = mixing.draw(rng, 0, 40000, 224, 224)
    assert np.mean([mix.box is not None for mix in draws]) == pytest.approx(expected["fraction_cutmix"], abs=0.01)
    blended = [mix.lam for mix in draws if mix.box is None]
    assert np.quantile(blended, expected["quantiles"]) == pytest.approx(expected["lam_mixup"], abs=0.02)
    assert np.std(blended) == pytest.approx(expected["std_mixup"], abs=0.01)


def test_minmax_draws_whole_boxes_with_sides_between_its_shares():
    mixing, rng = Mixing(10, mixup=0, cutmix=0, cutmix_minmax=(0.2, 0.5), mode="elem"), np.random.default_rng(0)
    sides = []
    for lam, (top, bottom, left, right) in mixing.draw(rng, 0, 2000, 100, 200):
        assert 0 <= top < bottom <= 100 and 0 <= left < right <= 200
        assert lam == pytest.approx(1 - (bottom - top) * (right - left) / 20000)
        sides.append(((bottom - top) / 100, (right - left) / 200))
    low, high = np.min(sides, 0), np.max(sides, 0)
    assert low == pytest.approx([0.2, 0.2], abs=0.01) and high == pytest.approx([0.5, 0.5], abs=0.02)
    assert np.mean(sides, 0) == pytest.approx([0.35, 0.35], abs=0.01)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("batch", [1, 2, 7, 8])
def test_targets_sum_to_one_and_follow_the_pixels_for_any_batch(mode, batch):
    labels = np.arange(batch) % 5
    images = np.broadcast_to(labels[:, None, None, None], (batch, 3, 16, 16)).astype(np.float32)
    mixed, targets = Mixing(5, mode=mode, smoothing=0.0)(images.copy(), labels, np.random.default_rng(batch), 0)
    assert targets.shape == (batch, 5) and targets.sum(1) == pytest.approx(np.ones(batch), abs=1e-5)
    # the image's mean grey is the mix of two labels, which is what its target says
    assert mixed.mean((1, 2, 3)) == pytest.approx(targets @ np.arange(5), abs=1e-4)


def test_modes_draw_once_per_batch_pair_or_sample():
    distinct = {
        mode: [mix.lam for mix in Mixing(10, mode=mode).draw(np.random.default_rng(0), 0, 8, 32, 32)]
        for mode in ("batch", "pair", "elem")
    }
    assert len(set(distinct["batch"])) == 1
    assert distinct["pair"] == distinct["pair"][::-1] and len(set(distinct["pair"])) == 4
    assert len(set(distinct["elem"])) == 8


def test_off_epoch_leaves_smoothed_labels_and_pixels_alone():
    mixing, images = Mixing(4, off_epoch=3), np.random.default_rng(0).random((4, 3, 8, 8), np.float32)
    mixed, targets = mixing(images.copy(), np.arange(4), np.random.default_rng(0), 3)
    assert np.array_equal(mixed, images)
    assert np.allclose(np.diag(targets), 0.925) and targets.sum(1) == pytest.approx(np.ones(4))
    assert not np.array_equal(mixing(images.copy(), np.arange(4), np.random.default_rng(0), 2)[0], images)


def test_probability_and_alphas_decide_what_happens():
    rng = np.random.default_rng(0)
    boxes = [mix.box is not None for mix in Mixing(2, mixup=0, cutmix=1, mode="elem").draw(rng, 0, 50, 8, 8)]
    assert all(boxes)
    assert not any(mix.box for mix in Mixing(2, mixup=1, cutmix=0, mode="elem").draw(rng, 0, 50, 8, 8))
    untouched = [mix.lam == 1 for mix in Mixing(2, probability=0.3, mode="elem").draw(rng, 0, 4000, 224, 224)]
    assert np.mean(untouched) == pytest.approx(0.7, abs=0.03)


def test_wrong_options_are_one_line():
    with pytest.raises(UserError, match="mixup mode is 'pairs'; allowed: batch, pair, elem .*'pair'"):
        Mixing(10, mode="pairs")
    with pytest.raises(UserError, match="smoothing is 1.5; allowed: 0 and above, at most 1"):
        Mixing(10, smoothing=1.5)
