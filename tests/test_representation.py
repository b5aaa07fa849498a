"""How far heads look, and what position tables and filters hold, against hand calculation and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from mindeit.errors import UserError
from mindeit.predict.representation import attention_distances, even_distance, position_similarities, principal_filters

NUMBERS = np.random.default_rng(0)
EVEN_OF_TWO = (0 + 1 + 1 + 2**0.5) / 4  # patches, in a grid of two by two


def test_a_head_that_looks_at_itself_looks_no_way():
    among = np.broadcast_to(np.eye(5), (3, 2, 5, 5))  # a class token and two by two patches
    assert attention_distances([among, among], 16).tolist() == [[0, 0], [0, 0]]


def test_a_head_that_looks_at_all_alike_looks_the_mean_distance():
    assert even_distance(2, 16) == pytest.approx(16 * EVEN_OF_TWO)
    assert attention_distances([np.full((1, 1, 6, 6), 1 / 6)], 16)[0, 0] == pytest.approx(16 * EVEN_OF_TWO)


def test_what_the_class_token_gets_makes_no_head_short_sighted():
    weights = np.full((1, 1, 5, 5), 0.01)
    weights[..., 0] = 0.96
    assert attention_distances([weights], 8)[0, 0] == pytest.approx(8 * EVEN_OF_TWO)


def test_distances_are_those_of_a_loop_over_pairs():
    weights = NUMBERS.random((2, 3, 9, 9))
    weights /= weights.sum(-1, keepdims=True)
    want = np.zeros(3)
    for one in range(9):
        for other in range(9):
            apart = 8 * np.hypot(one // 3 - other // 3, one % 3 - other % 3)
            want += apart * weights[:, :, one, other].mean(0) / 9
    assert attention_distances([weights], 8)[0] == pytest.approx(want)


def test_class_attention_has_no_distance():
    among, asking = np.full((1, 4, 16, 16), 1 / 16), np.full((1, 4, 1, 17), 1 / 17)
    assert attention_distances([among, asking], 8).shape == (1, 4)
    with pytest.raises(UserError, match="no block has attention among patches; allowed: DeiT"):
        attention_distances([asking], 8)


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_position_similarities_are_cosines_of_the_patches(extra):
    table = NUMBERS.standard_normal((1, extra + 9, 5)).astype(np.float32)
    found = position_similarities(table)
    assert found.shape == (3, 3, 3, 3)
    assert found.reshape(9, 9) == pytest.approx(cosine_similarity(table[0, extra:]), abs=1e-6)


def test_principal_filters_are_those_of_scikit_learn():
    weight = NUMBERS.standard_normal((40, 3, 4, 4)).astype(np.float32)
    shown, shares = principal_filters(weight, 5)
    want = PCA(5).fit(weight.reshape(40, -1))
    assert shares == pytest.approx(want.explained_variance_ratio_, rel=1e-4)
    for one, component in zip(shown - 0.5, want.components_):
        other = component.reshape(3, 4, 4).transpose(1, 2, 0)
        cosine = (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)
        assert abs(cosine) == pytest.approx(1, abs=1e-4)  # the sign is nobody's choice
    assert shown.min() >= 0 and shown.max() <= 1


def test_more_filters_than_there_are_is_an_error():
    with pytest.raises(UserError, match="count is 9; allowed: 1 to 8"):
        principal_filters(np.zeros((8, 3, 4, 4)), 9)
