"""The norm of all gradients: right, and added up in one order."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor

from mindeit.kernels.common_norm import ROW, CommonNorm, RowSums

LENGTHS = [1, 7, 1021, 1024, 1025, 7919, 40_000, 945_797, 1_048_576]


@pytest.mark.parametrize("length", LENGTHS)
def test_no_thread_shares_its_row(length):
    """What no thread can split has one order: rows up to 1,024, of which every value is in one."""
    left = length
    for columns, missing in RowSums(length).levels:
        assert columns <= ROW
        assert 0 <= missing < columns
        assert (left + missing) % columns == 0
        left = (left + missing) // columns
    assert left == 1


@pytest.mark.parametrize("lengths", [LENGTHS[:3], LENGTHS[3:]], ids=["short", "long"])
def test_it_is_the_root_of_all_squares(lengths, mode):
    rng = np.random.default_rng(0)
    vectors = [rng.standard_normal(length).astype(np.float32) ** 3 for length in lengths]
    found = CommonNorm(lengths)(tuple(map(Tensor, vectors)))
    exact = np.sqrt(sum((vector.astype(np.float64) ** 2).sum() for vector in vectors))
    assert found.shape == ()
    assert abs(float(found) - exact) < 5e-7 * exact
