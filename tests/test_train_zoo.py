"""A model of each family learns the embedded digits, by its shipped file."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT
from training_runs import start


@pytest.mark.slow
@pytest.mark.parametrize("family", ["deit3", "cait", "resmlp", "patchconvnet"])
def test_four_epochs_of_digits_teach_most_of_them(family, tmp_path):
    """Chance is 10 %; the shipped files' 20 epochs reach 95 % and more."""
    config = ROOT / "configs" / f"{family}_digits_cpu.yaml"
    log = tmp_path / "log"
    process = start(log, "-c", config, "--ckpt_save_dir", tmp_path / "run", "--epoch_size", 4)
    assert process.wait(1200) == 0, log.read_text()
    records = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert max(record["acc1"] for record in records) > 60
