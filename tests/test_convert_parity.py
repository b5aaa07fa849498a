from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from convert_weights import TINY, official_state, write_pth

from mindeit.convert import parity
from mindeit.errors import UserError
from mindeit.weights.load import load_weights

SIZE = 64  # small images keep it quick
MINI = "deit_mini_distilled_patch8_32"


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    path = write_pth(tmp_path_factory.mktemp("parity") / "a.pth", official_state(MINI, 20, 32))
    return load_weights(path)


def test_converted_weights_give_pytorchs_logits_and_blocks(tmp_path):
    mode = ms.get_context("mode")
    report = parity.verify(*load_weights(write_pth(tmp_path / "a.pth", official_state(MINI, 20, SIZE))))
    assert ms.get_context("mode") == mode
    assert report.ok
    assert report.mean_gap <= report.max_gap <= 2e-5
    assert report.departs is None
    assert (report.model, report.tensors) == (MINI, len(official_state(MINI)))
    assert report.bytes == sum(array.nbytes for array in official_state(MINI, 20, SIZE).values())


def test_first_block_that_departs_is_named(converted, monkeypatch):
    def altered(state, card, way_back=parity.to_official):
        official = way_back(state, card)
        return {**official, "blocks.1.mlp.fc1.bias": official["blocks.1.mlp.fc1.bias"] + np.float32(0.05)}

    monkeypatch.setattr(parity, "to_official", altered)
    report = parity.verify(*converted)
    assert not report.ok
    assert report.departs.startswith("blocks.1 (")
    assert "DIFFERENT" in str(report)


def test_weights_that_are_not_numbers_never_pass(converted):
    state, card = converted
    with pytest.raises(UserError, match="1 of 35 tensors hold values that are not finite"):
        parity.verify({**state, "norm.gamma": np.full_like(state["norm.gamma"], np.nan)}, card)


def test_report_is_a_short_table(converted):
    report = parity.Report(TINY, 152, 22_900_000, 1.5e-6, 2.5e-7, None, "PyTorch 2.13.0, MindSpore 2.10.0 on CPU")
    assert str(report).splitlines() == [
        f"parity of {TINY}: PyTorch 2.13.0, MindSpore 2.10.0 on CPU, 2 images",
        "  tensors mapped            152, 22.9 MB",
        "  logits, largest gap       1.5e-06 of their spread (limit 1e-04)",
        "  logits, mean gap          2.5e-07 of their spread",
        "  first block that departs  none",
        "  verdict                   equal",
    ]


@pytest.mark.parametrize(("gap", "ok"), [(1e-4, True), (1.01e-4, False), (float("nan"), False)])
def test_limit_is_a_ten_thousandth_of_the_spread(gap, ok):
    assert parity.Report(TINY, 1, 1, gap, gap, None, "").ok is ok


@pytest.mark.slow
@pytest.mark.parametrize("name", ["regnety_160", "deit_base_patch16_384"])
def test_large_models_agree_too(tmp_path, name):
    state = official_state(name, image_size=384 if name.endswith("384") else 224)
    report = parity.verify(*load_weights(write_pth(tmp_path / "a.pth", state)))
    assert report.max_gap <= 2e-5
    assert report.departs is None


def test_features_without_a_head_are_compared(tmp_path):
    path = write_pth(tmp_path / "a.pth", official_state("deit_mini_patch8_32_LS", 20, 32))
    assert parity.verify(*load_weights(path, num_classes=0)).ok
