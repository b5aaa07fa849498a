from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mindeit.errors import UserError
from mindeit.weights.position_tables import bicubic_weights, resize_pos_embed

GOLDEN = np.load(Path(__file__).parent / "golden" / "convert_pos_embed.npz")  # the official code's, four channels


@pytest.mark.parametrize(("old", "new"), [(224, 384), (384, 224)])
def test_resized_table_is_the_official_one(old, new):
    resized = resize_pos_embed(GOLDEN[f"from_{old}"], 2, new // 16)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, GOLDEN[f"to_{new}"], rtol=0, atol=2e-5)


def test_extra_tokens_stay_as_they_are():
    table = GOLDEN["from_224"]
    assert np.array_equal(resize_pos_embed(table, 2, 24)[:, :2], table[:, :2])


def test_same_grid_returns_the_same_values():
    table = GOLDEN["from_224"]
    assert np.array_equal(resize_pos_embed(table, 2, 14), table)


def test_table_without_extra_tokens_is_resized_whole():
    constant = np.full((1, 9, 3), 0.25, np.float32)
    assert np.allclose(resize_pos_embed(constant, 0, 5), np.full((1, 25, 3), 0.25), atol=1e-7)


@pytest.mark.parametrize(("old", "new"), [(14, 24), (24, 14), (1, 7), (7, 1), (2, 3)])
def test_weights_of_each_new_sample_sum_to_one(old, new):
    weights = bicubic_weights(old, new)
    assert weights.shape == (new, old)
    assert np.allclose(weights.sum(1), 1)


def test_halfway_between_samples_the_weights_are_those_of_a_minus_three_quarters():
    assert np.allclose(bicubic_weights(8, 4)[1], [0, -0.09375, 0.59375, 0.59375, -0.09375, 0, 0, 0])


def test_table_that_is_no_square_is_refused():
    with pytest.raises(UserError, match="the position table has 197 patches, which is no square grid"):
        resize_pos_embed(np.zeros((1, 198, 4), np.float32), 1, 24)
