"""Test-time augmentation: which views there are, and that their logits are averaged."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from mindspore import Tensor
from test_validate import run_main

import mindeit
from mindeit.data import EvalTransform, open_source
from mindeit.training import views
from mindeit.weights import checkpoint as checkpoints

IMAGES = np.arange(2 * 3 * 6 * 6, dtype=np.float32).reshape(2, 3, 6, 6)


def test_flips_are_the_image_and_its_mirror_image():
    plain, mirrored = views.flips(IMAGES, 6)
    assert np.array_equal(plain, IMAGES)
    assert np.array_equal(mirrored, torch.from_numpy(IMAGES).flip(3).numpy())


def test_five_crops_are_the_middle_and_the_corners():
    found = list(views.five_crops(IMAGES, 4))
    assert all(view.shape == (2, 3, 4, 4) for view in found)
    assert [view[0, 0, 0, 0] for view in found] == [6 + 1, 0, 2, 2 * 6, 2 * 6 + 2]


def test_the_mean_of_the_logits_is_given_and_images_stay():
    images = IMAGES.copy()
    found = views.averaged(lambda view: view[:, :, 0, 0], "5crop", 4)(images)
    assert np.array_equal(found, IMAGES[:, :, 0, 0] + np.float32((7 + 0 + 2 + 12 + 14) / 5))
    assert np.array_equal(images, IMAGES)


@pytest.mark.parametrize(("tta", "pixels"), [("flip", 32), ("5crop", 40)])
def test_validate_averages_over_them(tta, pixels, checkpoint, digits, tmp_path, monkeypatch):
    words = ["--data_dir", str(digits), "--ckpt_path", str(checkpoint), "--mode", "1", "--batch_size", "30"]
    assert run_main("validate.py", [*words, "--tta", tta, "--output", str(tmp_path / "r.json")], monkeypatch) == 0
    results = json.loads((tmp_path / "r.json").read_text())
    source, model = open_source("image_folder", str(digits), "val"), mindeit.Predictor(checkpoint).model
    transform = EvalTransform(pixels, 0.8 if pixels == 32 else 1.0)
    images = np.stack([transform(source.read(index)) for index in range(60)])
    cut = {
        "flip": [images, images[..., ::-1]],
        "5crop": [
            images[..., top : top + 32, left : left + 32] for top, left in ((4, 4), (0, 0), (0, 8), (8, 0), (8, 8))
        ],
    }[tta]
    logits = np.mean([model(Tensor(np.ascontiguousarray(view))).asnumpy() for view in cut], axis=0)
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(source.labels).long())
    assert results["tta"] == tta
    assert results["acc1"] == pytest.approx(100 * (logits.argmax(1) == source.labels).mean())
    assert results["loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_crops_of_nothing_are_refused(checkpoint, digits, tmp_path, monkeypatch, capsys):
    state, card = checkpoints.read(checkpoint)
    checkpoints.write(tmp_path / "whole.ckpt", state, replace(card, crop_pct=1.0))
    words = ["--data_dir", str(digits), "--ckpt_path", str(tmp_path / "whole.ckpt"), "--tta", "5crop"]
    assert run_main("validate.py", words, monkeypatch) == 2
    assert capsys.readouterr().err == (
        "error: --tta 5crop takes corners of what crop_pct cuts off, and crop_pct is 1; allowed: flip\n"
    )
