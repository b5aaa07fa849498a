"""The mean of several checkpoints' weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mindeit.cli.main import main
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.load import load_for_use, load_weights


@pytest.fixture
def files(checkpoint, tmp_path):
    """Three checkpoints that differ in their weights and temperatures."""
    state, card = checkpoints.read(checkpoint)
    rng, paths = np.random.default_rng(0), [str(tmp_path / f"{number}.ckpt") for number in range(3)]
    for number, path in enumerate(paths):
        noisy = {name: value + rng.normal(size=value.shape).astype(np.float32) for name, value in state.items()}
        checkpoints.write(path, noisy, replace(card, temperature=1.0 + number))
    return paths


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["average", *words])
    return ended.value.code


def test_each_weight_is_the_mean_and_the_file_is_a_checkpoint(files, checkpoint, tmp_path, capsys):
    output = str(tmp_path / "soup.ckpt")
    assert run(*files, "--output", output) == 0
    states = [load_weights(path)[0] for path in files]
    found, card = load_weights(output)
    assert capsys.readouterr().out == (
        f"wrote {output}: the mean of 3 files, deit_mini_distilled_patch8_32, {len(found)} tensors\n"
    )
    assert card == checkpoints.read_card(checkpoint)  # without a temperature
    for name, value in found.items():
        assert value.dtype == np.float32
        wanted = np.mean([state[name].astype(np.float64) for state in states], axis=0)
        assert value == pytest.approx(wanted.astype(np.float32), abs=0)
    assert load_for_use(output)[1] == card


def test_the_mean_of_the_same_is_the_same(files, tmp_path):
    assert run(files[0], files[0], "--output", str(tmp_path / "soup.safetensors")) == 0
    one, soup = (load_weights(path)[0] for path in (files[0], tmp_path / "soup.safetensors"))
    assert all(np.array_equal(one[name], soup[name]) for name in one)


def test_what_cannot_be_averaged_is_one_line(files, tmp_path, capsys):
    def refused(*words: str) -> str:
        assert run(*words) == 2
        return capsys.readouterr().err

    output, other = str(tmp_path / "soup.ckpt"), str(tmp_path / "other.ckpt")
    state, card = checkpoints.read(files[0])
    checkpoints.write(other, state, replace(card, crop_pct=0.9))
    assert refused(files[0], other, "--output", output) == (
        f"error: {other}: crop_pct is 0.9, but in {files[0]} it is 0.8; only alike models have a mean\n"
    )
    assert refused(files[0], "--output", output) == (
        f"error: command line: checkpoints is {files[0]}, allowed: two or more files\n"
    )
    assert refused(*files, "--output", files[1]) == (
        f"error: command line: --output is {files[1]}, which is read; allowed: another name\n"
    )
    assert refused(*files, "--output", "soup.pth") == (
        "error: command line: --output is soup.pth, allowed: a name that ends in .ckpt or .safetensors\n"
    )
    assert refused(*files, "--output", output, "--use_ema", "True") == (
        f"error: {files[0]} holds one set of weights; use_ema is for training checkpoints\n"
    )
    assert not (tmp_path / "soup.ckpt").exists()
