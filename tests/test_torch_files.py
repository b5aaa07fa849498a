from __future__ import annotations

import collections
import os
import pathlib
import pickle
import stat
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from convert_weights import same_bits, tensors, training_checkpoint, write_pth

from mindeit.errors import UserError
from mindeit.weights.torch_files import read_official, read_safetensors, write_official

STATE = {
    "norm.weight": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "bn.num_batches_tracked": np.array(41, np.int64),
    "norm.bias": np.array([0.1, -0.0, 1e-42], np.float32),
}
EMA = {name: np.array(array + 1, array.dtype) for name, array in STATE.items()}


class Runs:
    """Pickled as a call: whoever unpickles it carelessly runs the command."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def message(path, **options) -> str:
    with pytest.raises(UserError) as caught:
        read_official(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"model": tensors(STATE)},
        tensors(STATE),
        {"state_dict": tensors(STATE)},
        {"model": tensors(STATE, prefix="module.")},
        training_checkpoint(STATE, EMA),
    ],
    ids=["model", "bare", "state_dict", "module prefix", "training checkpoint"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_every_kind_of_official_file_gives_the_same_bits(tmp_path, content, zipped):
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert same_bits(read_official(tmp_path / "a.pth"), STATE)


def test_use_ema_takes_the_averaged_weights(tmp_path):
    torch.save(training_checkpoint(STATE, EMA), tmp_path / "a.pth")
    assert same_bits(read_official(tmp_path / "a.pth", use_ema=True), EMA)


def test_use_ema_of_a_file_without_them_tells_what_it_holds(tmp_path):
    torch.save({"model": tensors(STATE), "epoch": 3}, tmp_path / "a.pth")
    text = message(tmp_path / "a.pth", use_ema=True)
    assert text.endswith("holds no averaged weights 'model_ema'; it holds: model, epoch")


def test_half_and_double_precision_become_float32(tmp_path):
    content = {"a": torch.tensor([0.5, 3.0]).half(), "b": torch.tensor([0.5]).double(), "c": torch.ones(2).bfloat16()}
    torch.save(content, tmp_path / "a.pth")
    assert {array.dtype for array in read_official(tmp_path / "a.pth").values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_malicious_file_is_refused_by_name_and_never_run(tmp_path, zipped):
    trap = Runs(os.system, f"touch {tmp_path / 'was_run'}")
    torch.save({"model": tensors(STATE), "x": trap}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    text = message(tmp_path / "a.pth")
    assert f"holds a call of '{os.system.__module__}.system', which could run code or fill the memory: refused" in text
    assert not (tmp_path / "was_run").exists()
    torch.load(tmp_path / "a.pth", weights_only=False)  # the trap is a real one
    assert (tmp_path / "was_run").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_malicious_plain_pickle_is_never_run(tmp_path, protocol):
    trap = Runs(os.mkdir, str(tmp_path / "was_run"))
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"model": trap}, protocol=protocol))
    assert ("refused" if protocol == 2 else "allowed: protocol 2") in message(tmp_path / "a.pth")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (Runs(eval, "1"), "eval"),
        (pathlib.PurePosixPath("a"), "pathlib.PurePosixPath"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (np.arange(3), "multiarray._reconstruct"),
    ],
)
def test_anything_but_tensors_options_and_numbers_is_refused_by_name(tmp_path, thing, name):
    torch.save({"model": tensors(STATE), "x": thing}, tmp_path / "a.pth")
    text = message(tmp_path / "a.pth")
    assert f"{name}'" in text
    assert "refused" in text


def test_numpy_object_is_not_let_in_with_the_numpy_numbers(tmp_path):
    scalar = np.float64(1).__reduce__()[0]
    torch.save({"model": tensors(STATE), "x": Runs(scalar, np.dtype("O"), "a")}, tmp_path / "a.pth")
    assert "unsupported numpy type 'O8'" in message(tmp_path / "a.pth")


def test_allowances_end_with_the_reading(tmp_path):
    torch.save(training_checkpoint(STATE, EMA), tmp_path / "a.pth")
    before = set(torch.serialization.get_safe_globals())
    read_official(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_cut_file_is_one_line(tmp_path, zipped, share):
    torch.save({"model": tensors(STATE)}, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: int(len(whole) * share)])
    assert "is damaged or cut off" in message(tmp_path / "cut.pth")


def test_flipped_bit_is_noticed(tmp_path):
    marker = np.full(64, 1234.5, np.float32)
    write_pth(tmp_path / "a.pth", {"a": marker})
    content = bytearray((tmp_path / "a.pth").read_bytes())
    content[content.index(marker.tobytes()) + 5] ^= 1
    (tmp_path / "a.pth").write_bytes(content)
    assert "is damaged (wrong check sum of 'a/data/0')" in message(tmp_path / "a.pth")


def test_file_saved_without_check_sums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        write_pth(tmp_path / "a.pth", STATE)
    finally:
        torch.serialization.set_crc32_options(True)
    assert same_bits(read_official(tmp_path / "a.pth"), STATE)


def rezipped(path, change, **options):
    """The same archive with ``change(name, content)`` for the content of each entry."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))


def test_a_compressed_archive_is_refused_before_it_is_read(tmp_path):
    write_pth(tmp_path / "a.pth", STATE)
    rezipped(
        tmp_path / "a.pth",
        lambda name, content: content + bytes(10_000_000 * ("data/0" in name)),
        compression=zipfile.ZIP_DEFLATED,
    )
    assert (tmp_path / "a.pth").stat().st_size < 100_000
    text = message(tmp_path / "a.pth")
    assert "in it is compressed, which torch.save never does: refused" in text


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Runs(bytearray, 2**31 - 1), "builtins.bytearray"),
        (Runs(torch.FloatTensor, 10**5, 10**5), "torch.FloatTensor"),
        (Runs(collections.OrderedDict, [(str(n), n) for n in range(100)]), "collections.OrderedDict"),
    ],
    ids=["bytearray", "tensor", "copies"],
)
def test_a_call_that_fills_the_memory_is_refused(call, name, zipped, tmp_path):
    content = {"model": tensors(STATE), "x": [call] * 5}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert f"holds a call of '{name}', which could run code or fill the memory: refused" in message(tmp_path / "a.pth")


def test_a_few_hundred_bytes_of_pickle_do_not_take_gigabytes(tmp_path):
    (tmp_path / "a.pth").write_bytes(pickle.dumps([Runs(bytearray, 2**31 - 1) for _ in range(5)], protocol=2))
    tracemalloc.start()
    assert "holds a call of 'builtins.bytearray'" in message(tmp_path / "a.pth")
    assert tracemalloc.get_traced_memory()[1] < 1e7
    tracemalloc.stop()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_tensor_larger_than_the_file_is_refused(zipped, tmp_path):
    path, count = tmp_path / "a.pth", 12345
    torch.save({"a": torch.ones(count)}, path, _use_new_zipfile_serialization=zipped)
    old, new = b"M" + count.to_bytes(2, "little"), b"J" + (2**31 - 1).to_bytes(4, "little")  # BININT2 and BININT
    if zipped:
        rezipped(path, lambda name, content: content.replace(old, new) if name.endswith(".pkl") else content)
    else:
        path.write_bytes(path.read_bytes().replace(old, new))
    assert f"is damaged: it announces a tensor of {4 * (2**31 - 1)} bytes and holds" in message(path)


def test_a_tensor_that_repeats_one_value_without_an_end_is_refused(tmp_path):
    torch.save({"a": torch.ones(1), "b": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "a.pth")
    assert "'b' (1000000, 1000000) is larger than what is stored of it: refused" in message(tmp_path / "a.pth")


def test_one_storage_under_thousands_of_names_is_refused(tmp_path):
    shared = torch.ones(1000)
    torch.save({str(number): shared for number in range(2000)}, tmp_path / "a.pth")
    assert "its 2000 tensors are 8000000 bytes, the file" in message(tmp_path / "a.pth")


class Overwritten:
    """Pickled as an OrderedDict whose methods are texts."""

    def __init__(self, **entries):
        self.entries = entries

    def __reduce__(self):
        methods = dict.fromkeys(("items", "keys", "values", "get", "__iter__"), "none")
        return collections.OrderedDict, (), methods, None, iter(self.entries.items())


def test_a_dictionary_with_overwritten_methods_is_read_as_what_it_holds(tmp_path):
    weights = Overwritten(**tensors(STATE))
    for content in (weights, Overwritten(model=weights)):
        torch.save(content, tmp_path / "a.pth")
        assert same_bits(read_official(tmp_path / "a.pth"), STATE)
    torch.save(Overwritten(model_ema=weights), tmp_path / "a.pth")
    assert same_bits(read_official(tmp_path / "a.pth", use_ema=True), STATE)


def test_an_archive_of_several_disks_is_one_line(tmp_path):
    write_pth(tmp_path / "a.pth", STATE)
    content = (tmp_path / "a.pth").read_bytes()
    at = content.rindex(b"PK\x05\x06")
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 2)  # of an archive on two disks
    (tmp_path / "a.pth").write_bytes(content[:at] + locator + content[at:])
    assert "is damaged or cut off (zipfiles that span multiple disks are not supported)" in message(tmp_path / "a.pth")


def test_a_tar_archive_is_one_line(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    assert "is a tar archive, not a file of weights" in message(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "is not a PyTorch file"),
        (b"\x89PNG\r\n\x1a\n", "is not a PyTorch file"),
    ],
)
def test_other_files_are_one_line(tmp_path, content, words):
    (tmp_path / "a.pth").write_bytes(content)
    assert words in message(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds a list, not weights"),
        ({"model": {}}, "holds no weights: it is empty"),
        ({"epoch": 3}, "holds no weights: entry 'epoch' is not a tensor"),
        ({"model": {"a": 1.0}}, "holds no weights: entry 'a' is not a tensor"),
        ({"model": {3: torch.ones(1)}}, "holds no weights: entry '3' is not a tensor"),
    ],
)
def test_file_without_weights_is_one_line(tmp_path, content, words):
    torch.save(content, tmp_path / "a.pth")
    assert words in message(tmp_path / "a.pth")


def test_missing_file_and_folder_are_one_line(tmp_path):
    assert str(tmp_path / "none.pth") in message(tmp_path / "none.pth")
    assert "folder" in message(tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_written_file_gives_the_same_bits_back(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_official(path, STATE)
    assert same_bits(dict(sorted(read_official(path).items())), dict(sorted(STATE.items())))
    assert os.listdir(tmp_path) == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) & 0o400


def test_pytorch_reads_what_was_written(tmp_path):
    write_official(tmp_path / "a.pth", STATE)
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert list(content) == ["model"]
    assert torch.equal(content["model"]["norm.weight"], torch.from_numpy(STATE["norm.weight"]))
    assert content["model"]["bn.num_batches_tracked"].dtype == torch.int64


def test_safetensors_of_every_precision_become_float32(tmp_path):
    exact = torch.tensor([1.5, -0.25, 2.0**100])
    kinds = {"bf16": torch.bfloat16, "f32": torch.float32, "f64": torch.float64}
    content = {name: exact.to(kind) for name, kind in kinds.items()}
    content |= {"f16": torch.tensor([1.5, -0.25, 3.0]).half(), "count": torch.tensor(7)}
    safetensors.torch.save_file(content, tmp_path / "a.safetensors")
    state = read_safetensors(tmp_path / "a.safetensors")
    for name in kinds:
        assert state[name].dtype == np.float32
        assert np.array_equal(state[name], exact.numpy())
    assert np.array_equal(state["f16"], np.array([1.5, -0.25, 3.0], np.float32))
    assert state["count"].dtype == np.int64
    assert state["count"] == 7


def test_safetensors_of_an_unknown_precision_is_refused(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    assert "a has type F8_E4M3; allowed: F64, F32, F16, BF16" in message(tmp_path / "a.safetensors")


@pytest.mark.parametrize("length", [3, 20, 90])
def test_cut_safetensors_is_one_line(tmp_path, length):
    safetensors.torch.save_file(tensors(STATE), tmp_path / "whole.safetensors")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:length])
    assert "is not a .safetensors file, or is cut off" in message(tmp_path / "a.safetensors")
