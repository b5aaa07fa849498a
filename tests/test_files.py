"""Where results go: only regular files are replaced; devices, pipes, links and the screen stay what they are."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading

import pytest

from mindeit.errors import UserError
from mindeit.files import atomic, atomic_group, check_writable, existing_file, write_json


@pytest.fixture
def device(tmp_path):
    """One like /dev/null, that may be lost."""
    path = tmp_path / "null"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        path.open("wb").close()
    except PermissionError:
        pytest.skip("devices need root")
    return path


def test_a_device_stays_a_device(device, tmp_path):
    check_writable(device)
    write_json(device, {"a": 1})
    with atomic_group(device) as temporary:
        temporary.write_bytes(b"x")
    (tmp_path / "link.json").symlink_to(device)
    write_json(tmp_path / "link.json", {"a": 1})
    assert stat.S_ISCHR(device.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["link.json", "null"]


def test_a_pipe_passes_the_content_on(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    check_writable(tmp_path / "pipe")
    write_json(tmp_path / "pipe", [1])
    reader.join(10)
    assert [json.loads(text) for text in got] == [[1]]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("there", [True, False], ids=["file", "nothing"])
def test_a_link_is_written_through(there, tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "real.json", tmp_path / "link.json"
    if there:
        target.write_text("old")
    link.symlink_to(target)
    write_json(link, [2])
    with atomic_group(link) as temporary:
        temporary.write_text("[3]")
    assert link.is_symlink()
    assert json.loads(target.read_text()) == [3]
    assert os.listdir(tmp_path / "far") == ["real.json"]


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_name_of_the_screen_writes_to_it(name, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    print("before")
    check_writable(name)
    write_json(name, [4])
    print("after")
    assert capfd.readouterr().out == "before\n[\n 4\n]\nafter\n"
    assert os.listdir(tmp_path) == []


def test_a_redirected_screen_keeps_what_was_printed(tmp_path):
    code = "from mindeit.files import write_json; print('before'); write_json('/dev/stdout', 5); print('after')"
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\n5\nafter\n"


@pytest.mark.parametrize("call", [existing_file, check_writable, lambda path: write_json(path, 1)])
@pytest.mark.parametrize("folder", [".", "new"])
def test_a_name_of_300_characters_is_one_line(call, folder, tmp_path):
    path = tmp_path / folder / ("x" * 300 + ".ckpt")
    with pytest.raises(UserError, match=r"x{300}\.ckpt: (.*File name too long|no such file)$") as error:
        call(path)
    assert "\n" not in str(error.value)


def test_the_longest_name_there_is_can_be_written(tmp_path):
    path = tmp_path / ("x" * 250 + ".json")
    write_json(path, 1)
    with atomic(path) as temporary:
        temporary.write_text("2")
    with atomic_group(path) as temporary:
        temporary.write_text("3")
    assert path.read_text() == "3"
    assert os.listdir(tmp_path) == [path.name]


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    (tmp_path / "loop.ckpt").symlink_to(tmp_path / "loop.ckpt")
    reasons = {"pipe.ckpt": "is a device or a pipe, a file is needed", "loop.ckpt": "Too many levels of symbolic"}
    for name, words in reasons.items():
        with pytest.raises(UserError, match=f"{name}: {words}"):
            existing_file(tmp_path / name)


def test_a_full_disk_keeps_no_half_of_an_index(tmp_path, monkeypatch):
    import numpy as np

    from mindeit.data.index_cache import cached_arrays

    def full(file, **arrays):
        with open(file, "wb") as half:
            half.write(b"half")
        raise OSError(28, "No space left on device")

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(np, "savez", full)
            arrays = cached_arrays(["key"], lambda: ({"a": np.arange(3)}, []), str(tmp_path / "cache"))
        assert arrays["a"].tolist() == [0, 1, 2]
        assert os.listdir(tmp_path / "cache") == []
    cached_arrays(["key"], lambda: ({"a": np.arange(3)}, []), str(tmp_path / "cache"))
    assert cached_arrays(["key"], None, str(tmp_path / "cache"))["a"].tolist() == [0, 1, 2]
