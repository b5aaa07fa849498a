"""Checkpoint files: what goes in comes out, whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from mindeit.errors import UserError
from mindeit.files import atomic, atomic_group, check_writable
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.card import ModelCard

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


def test_a_damaged_file_is_refused_and_says_so(tmp_path):
    path = tmp_path / "model.ckpt"
    checkpoints.write(path, STATE, CARD)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(UserError, match="checksum .*, the file is damaged$|or truncated$"):
            checkpoints.read(path)


def changed(path, old: bytes, new: bytes):
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (STATE["head.bias"].tobytes(), np.float32([0.1, -3]).tobytes(), "tensors do"),
        (STATE["head.bias"].tobytes(), np.float32([np.nan, -2]).tobytes(), "tensors do"),
        (b"0.875", b"0.975", "model card does"),
    ],
    ids=["number", "nan", "card"],
)
def test_a_safetensors_file_that_was_changed_is_refused(old, new, what, tmp_path):
    checkpoints.write(tmp_path / "a.safetensors", STATE, CARD)
    path = changed(tmp_path / "a.safetensors", old, new)
    with pytest.raises(UserError) as error:
        checkpoints.read(path)
    assert str(error.value) == (
        f"{path} is damaged or was changed: its {what} not match the digest it carries; --no-check takes it as it is"
    )
    state, card = checkpoints.read(path, check=False)
    assert card.model == CARD.model
    assert set(state) == set(STATE)


def test_a_ckpt_file_without_its_checksum_is_refused(tmp_path):
    path = tmp_path / "model.ckpt"
    checkpoints.write(path, STATE, CARD)
    path.write_bytes(path.read_bytes()[:-17])
    with pytest.raises(UserError, match="model.ckpt: the checksum at its end is missing, the file is damaged$"):
        checkpoints.read(path)
    assert set(checkpoints.read(path, check=False)[0]) == set(STATE)


def test_tensors_changed_under_a_right_checksum_are_refused(tmp_path):
    from mindeit.weights import ckpt

    checkpoints.write(tmp_path / "a.ckpt", STATE, CARD)
    texts = {name: text for name, text in ckpt.read_entries(tmp_path / "a.ckpt").items() if isinstance(text, str)}
    ckpt.write(tmp_path / "a.ckpt", {**STATE, "head.bias": np.zeros(2, np.float32)}, texts)
    with pytest.raises(UserError, match="its tensors do not match the digest it carries"):
        checkpoints.read(tmp_path / "a.ckpt")


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_a_file_of_before_there_were_digests_is_read_with_a_note(suffix, tmp_path, capsys):
    path = tmp_path / f"old{suffix}"
    checkpoints.write(path, STATE, CARD)
    assert checkpoints.read(path)[1] == CARD
    assert capsys.readouterr().err == ""
    if suffix == ".ckpt":
        from mindeit.weights import ckpt

        ckpt.write(path, STATE, {checkpoints.CARD_KEY: CARD.to_json()})
    else:
        from safetensors.numpy import save_file

        save_file(STATE, path, {checkpoints.CARD_KEY: CARD.to_json()})
    assert checkpoints.read(path)[1] == CARD
    assert capsys.readouterr().err == (
        f"note: {path} is of a time before files carried a digest of their tensors; it cannot be checked\n"
    )


def test_a_digest_is_that_of_the_tensors_in_any_file_and_order(tmp_path):
    from mindeit.weights.integrity import digest

    found = set()
    for suffix in checkpoints.SUFFIXES:
        checkpoints.write(tmp_path / f"a{suffix}", dict(reversed(STATE.items())), CARD)
        found.add(digest(checkpoints.read(tmp_path / f"a{suffix}")[0]))
    assert found == {digest(STATE)}
    weight, bias = STATE["head.weight"], STATE["head.bias"]
    others = [
        {"head.weight": weight},
        {**STATE, "head.bias": bias.astype(np.float64)},
        {**STATE, "head.weight": weight.reshape(3, 2)},
        {**STATE, "head.bias": bias + 1},
    ]
    assert len({digest(STATE), *map(digest, others)}) == 5


def test_mindspore_reads_our_file_and_finds_its_own_checksum_right(tmp_path):
    import mindspore as ms

    checkpoints.write(tmp_path / "model.ckpt", STATE, CARD)
    loaded = ms.load_checkpoint(str(tmp_path / "model.ckpt"), crc_check=True)
    assert np.array_equal(loaded["head.weight"].asnumpy(), STATE["head.weight"])
    assert ModelCard.from_json(loaded["mindeit"]) == CARD


@pytest.mark.parametrize("checksum", [False, True])
def test_a_file_that_mindspore_wrote_is_read_as_mindspore_reads_it(checksum, tmp_path, monkeypatch):
    import mindspore as ms

    monkeypatch.setattr("mindspore.train.serialization.SLICE_SIZE", 1)  # KiB: arrays of more come in slices
    rows = {
        "large": ms.Tensor(np.arange(3000, dtype=np.float32).reshape(30, 100)),
        "scalar": ms.Tensor(3, ms.int64),
        "half": ms.Tensor([1.5, -2], ms.float16),
        "flag": ms.Tensor([True, False]),
    }
    path = str(tmp_path / "other.ckpt")
    ms.save_checkpoint(
        [{"name": name, "data": value} for name, value in rows.items()],
        path,
        crc_check=checksum,
        append_dict={"epoch_num": 3, "note": "ü"},
    )
    state, card = checkpoints.read(path)
    theirs = ms.load_checkpoint(path)
    assert card is None
    assert set(state) == set(theirs) - {"note"} == {*rows, "epoch_num"}
    for name, array in state.items():
        assert array.dtype == theirs[name].asnumpy().dtype
        assert np.array_equal(array, theirs[name].asnumpy())


def test_bfloat16_is_read_as_the_float32_of_the_same_value(tmp_path):
    import mindspore as ms

    values = [[1.0, -2.5], [3e38, 0.0078125]]
    rows = [{"name": "w", "data": ms.Tensor(np.array(values, np.float32)).astype(ms.bfloat16)}]
    ms.save_checkpoint(rows, str(tmp_path / "b.ckpt"))
    state, _ = checkpoints.read(tmp_path / "b.ckpt")
    assert state["w"].dtype == np.float32
    np.testing.assert_allclose(state["w"], values, rtol=2**-8)
    assert state["w"][0].tolist() == values[0]


@pytest.mark.parametrize("suffix", checkpoints.SUFFIXES)
def test_use_ema_of_a_file_with_one_set_of_weights_is_refused(suffix, tmp_path):
    checkpoints.write(tmp_path / f"model{suffix}", STATE, CARD)
    with pytest.raises(UserError) as error:
        checkpoints.read(tmp_path / f"model{suffix}", use_ema=True)
    assert str(error.value) == (
        f"{tmp_path / f'model{suffix}'} holds one set of weights; use_ema is for training checkpoints"
    )


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


def test_files_that_belong_together_appear_together_or_not_at_all(tmp_path):
    path, beside = tmp_path / "new" / "model.onnx", tmp_path / "new" / "model.onnx.data"
    for text in ("first", "second"):
        with atomic_group(path) as temporary:
            temporary.write_text(text)
            temporary.with_name(beside.name).write_text(text)
            temporary.with_name(beside.name).chmod(0o400)  # as MindSpore leaves its files
            assert not path.exists() or path.read_text() == "first"
        assert (path.read_text(), beside.read_text()) == (text, text)
        assert beside.stat().st_mode == path.stat().st_mode
    with pytest.raises(RuntimeError), atomic_group(path) as temporary:
        temporary.with_name(beside.name).write_text("half")
        raise RuntimeError("killed")
    assert (path.read_text(), beside.read_text()) == ("second", "second")
    assert sorted(path.parent.iterdir()) == [path, beside]


def test_a_place_that_cannot_be_written_is_said_before_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file/out.json: cannot write there: (Not a directory|File exists)"):
        check_writable(tmp_path / "file" / "out.json")
    with pytest.raises(UserError, match="is a folder, the name of a file is needed"):
        check_writable(tmp_path)
    check_writable(tmp_path / "fine.json")
    assert not (tmp_path / "fine.json").exists()
