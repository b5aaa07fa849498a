"""A run begins on two ranks, goes on with one, and ends on four."""

from __future__ import annotations

import pytest
from training_runs import SMALL, finish, history, write_images

pytestmark = pytest.mark.slow
MORE_THAN_CORES = {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}


def test_two_ranks_then_one_then_four(tmp_path):
    options = (
        *SMALL,
        "--data_dir",
        write_images(tmp_path / "images"),
        "--num_parallel_workers",
        1,
        "--ckpt_save_dir",
        tmp_path / "run",
    )
    finish(tmp_path / "log", *options, "--epoch_size", 1, "--distributed", True, ranks=2)
    finish(tmp_path / "log", *options, "--epoch_size", 2, "--resume", "auto")
    finish(
        tmp_path / "log",
        *options,
        "--epoch_size",
        3,
        "--resume",
        "auto",
        "--distributed",
        True,
        ranks=4,
        **MORE_THAN_CORES,
    )
    assert [record["step"] for record in history(tmp_path / "run")] == [4, 12, 14]
