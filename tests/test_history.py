"""History: lines that survive kills, resuming without doubles, TensorBoard's events; and the image of the curves."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindeit.errors import UserError
from mindeit.training.curves import draw
from mindeit.training.history import History


def record(epoch: int, **more: float | None) -> dict:
    return {"epoch": epoch, "step": 10 * epoch, "train_loss": 7 - 0.1 * epoch, **more}


def lines(folder: Path) -> list[dict]:
    text = (folder / "history.jsonl").read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def events(folder: Path) -> list:
    """All events of the folder in the order in which TensorBoard reads them."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])  # then its checksum (4), the event, its checksum (4)
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def scalars_shown(folder: Path, tag: str) -> dict[int, float]:
    """Step -> value after each start of a session took back what earlier ones wrote from its step on."""
    shown: dict[int, float] = {}
    for event in events(folder):
        if event.HasField("session_log"):
            shown = {step: value for step, value in shown.items() if step < event.step}
        for value in event.summary.value:
            if value.tag == tag:
                assert event.step not in shown, "drawn twice"
                shown[event.step] = value.simple_value
    return shown


def test_each_epoch_is_a_line_that_reads_back(tmp_path):
    history = History(tmp_path / "new" / "folder", trackers=())
    history.add(record(1, val_loss=None, acc1=np.float32(0.5), images=np.int64(7)))
    assert lines(tmp_path / "new" / "folder") == [
        {"epoch": 1, "step": 10, "train_loss": 6.9, "val_loss": None, "acc1": 0.5, "images": 7}
    ]
    history.add(record(2))
    assert history.records == lines(tmp_path / "new" / "folder")
    assert not (tmp_path / "new" / "folder" / "tensorboard").exists()


def test_nan_and_infinity_become_null_so_that_any_reader_of_json_can_read_the_file(tmp_path):
    History(tmp_path, trackers=()).add({"epoch": 0, "val_loss": float("nan"), "lr": np.float32("inf")})
    assert (tmp_path / "history.jsonl").read_text() == '{"epoch": 0, "val_loss": null, "lr": null}\n'


def test_nothing_is_written_before_the_first_record(tmp_path):
    History(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_new_run_forgets_the_old_history(tmp_path):
    old = History(tmp_path)
    old.add(record(1))
    old.close()
    new = History(tmp_path)
    assert new.records == []
    new.add(record(1, train_loss=3.0))
    assert lines(tmp_path) == [record(1, train_loss=3.0)]
    assert scalars_shown(tmp_path, "train_loss") == {1: 3.0}


def test_resuming_keeps_the_earlier_epochs_once(tmp_path):
    first = History(tmp_path, trackers=())
    for epoch in range(1, 6):
        first.add(record(epoch))
    first.add(record(2, train_loss=1.0))  # a doubled epoch: what was written last counts
    resumed = History(tmp_path, trackers=(), epochs=3)
    assert [one["epoch"] for one in resumed.records] == [1, 2, 3]
    assert resumed.records[1]["train_loss"] == 1.0
    resumed.add(record(4, train_loss=0.5))
    assert lines(tmp_path) == resumed.records
    assert [one["epoch"] for one in lines(tmp_path)] == [1, 2, 3, 4]
    assert os.listdir(tmp_path) == ["history.jsonl"]


def test_resuming_where_no_history_is_begins_one(tmp_path):
    history = History(tmp_path, trackers=(), epochs=7)
    history.add(record(8))
    assert [one["epoch"] for one in lines(tmp_path)] == [8]


def test_a_history_that_counts_from_0_goes_on_from_1(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"epoch": 0, "lr": 3.0}\n{"epoch": 1, "lr": 2.0}\n')
    History(tmp_path, trackers=(), epochs=2).add({"epoch": 3, "lr": 1.0})
    assert lines(tmp_path) == [{"epoch": 1, "lr": 3.0}, {"epoch": 2, "lr": 2.0}, {"epoch": 3, "lr": 1.0}]


@pytest.mark.parametrize("rest", [b'{"epoch": 3, "train_lo', b"\0" * 20, b"\xff\xfe"])
def test_half_a_line_at_the_end_is_dropped(tmp_path, rest):
    history = History(tmp_path, trackers=())
    history.add(record(1))
    history.add(record(2))
    with open(tmp_path / "history.jsonl", "ab") as file:
        file.write(rest)
    History(tmp_path, trackers=(), epochs=2).add(record(3))
    assert lines(tmp_path) == [record(1), record(2), record(3)]


BAD = {
    "cut": '{"epo',
    "no epoch": '{"loss": 1}',
    "null": '{"epoch": null}',
    "a number": "7",
    "a list": "[]",
    "infinite": '{"epoch": Infinity}',
    "half": '{"epoch": 1.5}',
    "text": '{"epoch": 2, "loss": "low"}',
    "a list in it": '{"epoch": 2, "loss": [1]}',
    "deep": "[" * 100_000,
    "many digits": '{"epoch": 1' + "0" * 5000 + "}",
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_line_in_the_middle_is_named(tmp_path, bad):
    (tmp_path / "history.jsonl").write_text(f'{{"epoch": 1}}\n{BAD[bad]}\n{{"epoch": 3}}\n')
    with pytest.raises(UserError, match=r"history.jsonl: line 2 is not the record of an epoch; mend it or move"):
        History(tmp_path, trackers=(), epochs=2)


def test_infinity_that_another_program_wrote_becomes_null(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"epoch": 1, "loss": Infinity, "lr": 1e999}\n')
    History(tmp_path, trackers=(), epochs=1).add(record(2))
    assert lines(tmp_path) == [{"epoch": 1, "loss": None, "lr": None}, record(2)]


def test_a_history_that_is_a_folder_is_one_line(tmp_path):
    (tmp_path / "history.jsonl").mkdir()
    with pytest.raises(UserError, match=r"history.jsonl: is a folder, the name of a file is needed$"):
        History(tmp_path, epochs=2)


def test_a_writer_killed_at_any_moment_leaves_whole_lines_and_can_go_on(tmp_path):
    code = """
import sys
from mindeit.training.history import History
start = int(sys.argv[2])
history = History(sys.argv[1], epochs=start)
for epoch in range(start + 1, 10**6):
    history.add({"epoch": epoch, **{f"value_{n}": epoch + n / 7 for n in range(200)}})
"""
    wait, reached = np.random.default_rng(0), 0
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(reached)])
        path, deadline = tmp_path / "history.jsonl", time.monotonic() + 60
        while not path.exists() or path.read_bytes().count(b"\n") < reached + 3:
            assert writer.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(wait.uniform(0, 0.05))
        writer.kill()
        assert writer.wait() == -9
        found = History(tmp_path, trackers=(), epochs=10**6).records
        assert [one["epoch"] for one in found] == list(range(1, len(found) + 1))
        assert all(len(one) == 201 for one in found)
        assert len(found) >= reached + 3
        reached = len(found) - 1  # as if the last epoch's checkpoint had not been written
    finished = History(tmp_path, epochs=reached)
    finished.add({"epoch": reached + 1, "value_0": 0.5})
    assert [one["epoch"] for one in lines(tmp_path)] == list(range(1, reached + 2))


def test_tensorboard_gets_a_scalar_for_each_figure(tmp_path):
    History(tmp_path).add(record(4, val_loss=None, acc1=81.5))  # not closed: it is on the disk all the same
    start, event = events(tmp_path)
    assert start.file_version == "brain.Event:2"
    assert event.step == 4
    shown = {value.tag: value.simple_value for value in event.summary.value}
    assert shown == pytest.approx({"step": 40, "train_loss": 6.6, "acc1": 81.5})


def test_tensorboard_curves_do_not_double_after_resuming(tmp_path):
    first = History(tmp_path)
    for epoch in range(1, 6):
        first.add(record(epoch))
    for _ in range(2):  # at once, and twice: no file of events overwrites another
        resumed = History(tmp_path, epochs=2)
        resumed.add(record(3, train_loss=0.5))
    assert scalars_shown(tmp_path, "train_loss") == pytest.approx({1: 6.9, 2: 6.8, 3: 0.5})
    assert [event.step for event in events(tmp_path) if event.HasField("session_log")] == [3, 3]


def test_neither_torch_nor_tensorflow_nor_pyplot_is_loaded(tmp_path):
    code = """
import sys
from mindeit.training import curves, history
assert not {"tensorboardX", "matplotlib"} & set(sys.modules)
made = history.History(sys.argv[1])
made.add({"epoch": 1, "train_loss": 1.0})
curves.draw(made.records, sys.argv[1] + "/curves.png")
assert {"tensorboardX", "matplotlib"} <= set(sys.modules)
print(sorted({"torch", "tensorflow", "mindspore", "matplotlib.pyplot"} & set(sys.modules)))
import torch
print(torch.ones(2).sum().item())
"""
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "2.0"]


def test_without_tensorboardx_the_package_is_named(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("tensorboardX")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"tracker tensorboard needs tensorboardX \(pip install tensorboardX\)"):
        History(tmp_path)


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="history.jsonl: cannot write there: "):
        History(tmp_path / "file")
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(UserError, match="tensorboard: cannot write there: File exists"):
        History(tmp_path)


def test_a_full_disk_is_one_line_and_what_was_written_stays(tmp_path):
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from mindeit.training.history import History
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150, {resource.RLIM_INFINITY}))  # bytes a file may grow to
history = History(sys.argv[1], trackers=())
try:
    for epoch in range(1, 100):
        history.add({{"epoch": epoch, "train_loss": 1.0}})
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"UserError {tmp_path}: cannot write the history: File too large\n"
    left = History(tmp_path, trackers=(), epochs=100).records
    assert [one["epoch"] for one in left] == [1, 2, 3, 4]


COLOURS = {"training": "#4c72b0", "validation": "#dd8452", "EMA": "#55a868", "lr": "#8172b3"}


def panels(path: Path) -> list[dict[str, np.ndarray]]:
    """For each of three panels: curve -> (points, 2) rows and columns of its colour."""
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    third = image.shape[1] // 3
    wanted = {name: [int(colour[at : at + 2], 16) for at in (1, 3, 5)] for name, colour in COLOURS.items()}
    parts = [image[:, third * n : third * (n + 1)] for n in range(3)]
    return [{name: np.argwhere((part == rgb).all(-1)) for name, rgb in wanted.items()} for part in parts]


@pytest.mark.parametrize("epochs", [1, 12, 300])
def test_curves_show_losses_accuracies_and_rate_in_their_panels(tmp_path, epochs):
    records = [
        {
            "epoch": n,
            "lr": 1e-3 / (1 + n),
            "train_loss": 7 - n / 100,
            "val_loss": 5 - n / 100,
            "acc1": 1 + n / 9,
            "ema_acc1": 3 + n / 8,
        }
        for n in range(epochs)
    ]
    draw(records, tmp_path / "curves.png")
    loss, accuracy, rate = panels(tmp_path / "curves.png")
    assert all(
        len(found) > 5
        for found in (loss["training"], loss["validation"], accuracy["training"], accuracy["EMA"], rate["lr"])
    )
    assert len(loss["EMA"]) == len(accuracy["validation"]) == len(rate["training"]) == 0
    assert os.listdir(tmp_path) == ["curves.png"]


def test_epochs_without_evaluation_are_joined_over(tmp_path):
    evaluated = [{"epoch": n, "train_loss": 1.0, "acc1": float(n)} for n in range(0, 101, 10)]
    gaps = [{"epoch": n, "train_loss": 1.0, "acc1": float(n) if n % 10 == 0 else None} for n in range(101)]
    for one in gaps[1::10]:
        del one["acc1"]
    for name, records in (("whole.png", evaluated), ("gaps.png", gaps)):
        draw(records, tmp_path / name)
    whole, joined = (panels(tmp_path / name)[1]["training"] for name in ("whole.png", "gaps.png"))
    assert len(whole) > 200
    assert np.array_equal(whole, joined)


def test_the_best_epoch_is_marked(tmp_path):
    flat = [{"epoch": n, "acc1": 50.0} for n in range(101)]
    peak = [{"epoch": n, "acc1": 80.0 if n == 30 else 50.0} for n in range(101)]
    heights = []
    for name, records in (("flat.png", flat), ("peak.png", peak)):
        draw(records, tmp_path / name)
        found = panels(tmp_path / name)[1]["training"]
        columns, counts = np.unique(found[:, 1], return_counts=True)
        heights.append(columns[counts.argmax()])
    assert heights[0] < heights[1]  # of equals the first, at the left edge; else the highest
    assert 0.2 < (heights[1] - heights[0]) / (477 - 2 * heights[0]) < 0.45


def test_nothing_to_draw_still_gives_a_image(tmp_path):
    draw([], tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size == (1430, 440)


def test_a_image_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(UserError, match="curves.png: is a folder, the name of a file is needed"):
        draw([], tmp_path / "curves.png")
