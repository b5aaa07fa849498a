"""Checkpoint files: what goes in comes out, whole or not at all."""
from __future__ import annotations

import numpy as np
import pytest

from mindeit import checkpoint as checkpoints
from mindeit.checkpoint import ModelCard
from mindeit.errors import UserError
from mindeit.files import atomic, check_writable

STATE = {"head.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "head.bias": np.array([0.1, -2], np.float32)}
CARD = ModelCard("deit_tiny_patch16_224", 2, 224, 0.875, class_names=("Käse", "猫"), counters={"bn.n": 7})


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_weights_and_card_come_back_bit_for_bit(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    checkpoints.write(path, STATE, CARD)
    state, card = checkpoints.read(path)
    assert card == CARD
    assert set(state) == set(STATE)
    for name, array in STATE.items():
        assert state[name].dtype == array.dtype
        assert np.array_equal(state[name], array)


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_a_file_without_a_card_is_read_too(suffix, tmp_path):
    checkpoints.write(tmp_path / f"model{suffix}", STATE)
    state, card = checkpoints.read(tmp_path / f"model{suffix}")
    assert card is None
    assert set(state) == set(STATE)


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_a_truncated_file_is_one_line(suffix, tmp_path, capfd):
    path = tmp_path / f"model{suffix}"
    checkpoints.write(path, STATE, CARD)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match="or truncated") as error:
        checkpoints.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert "ERROR" not in capfd.readouterr().err


def test_missing_empty_folder_and_unknown_kind_are_named(tmp_path):
    (tmp_path / "empty.ckpt").touch()
    (tmp_path / "model.h5").write_text("x")
    for name, message in {
        "nothing.ckpt": "no such file",
        "empty.ckpt": "is empty",
        "": "is a folder, a file is needed",
        "model.h5": "unknown kind of checkpoint '.h5'; allowed: .ckpt, .safetensors",
    }.items():
        with pytest.raises(UserError) as error:
            checkpoints.read(tmp_path / name)
        assert str(error.value) == f"{tmp_path / name}: {message}".replace("/:", ":")


def test_strict_loading_lists_everything_at_once_and_sets_nothing():
    from mindspore import nn

    model = nn.SequentialCell(nn.Dense(3, 2), nn.Dense(2, 2))
    before = model[0].bias.asnumpy().copy()
    state = {
        "0.weight": np.zeros((9, 9), np.float32),
        "0.bias": np.ones(2, np.float32),
        "1.weight": np.zeros((2, 2), np.float32),
        "strange": np.zeros(1, np.float32),
    }
    with pytest.raises(UserError) as error:
        checkpoints.load_strict(model, state, "file.ckpt")
    assert str(error.value) == (
        "file.ckpt: the weights do not fit the model; 1 missing: 1.bias; 1 unexpected: strange; "
        "1 misshapen: 0.weight (9, 9) instead of (2, 3)"
    )
    assert np.array_equal(model[0].bias.asnumpy(), before)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "results.json"
    with atomic(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_said_before_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file/out.json: cannot write there: (Not a directory|File exists)"):
        check_writable(tmp_path / "file" / "out.json")
    with pytest.raises(UserError, match="is a folder, the name of a file is needed"):
        check_writable(tmp_path)
    check_writable(tmp_path / "fine.json")
    assert not (tmp_path / "fine.json").exists()
