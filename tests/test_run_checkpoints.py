"""Training checkpoints: bit for bit, refused when damaged, never lost to a kill or a full disk."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mindeit.errors import UserError
from mindeit.training.run_checkpoints import CheckpointManager, RunCheckpoint, check_resumable, load, newest_sound, save
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.card import ModelCard

CARD = ModelCard("deit_tiny_patch16_224", 3, 224, 0.875, class_names=("a", "Käse", "猫"))
RECORD = {"epoch": 4, "batch": 0, "step": 40, "ranks": 2, "batch_size": 8, "accumulation": 1, "opt": "adamw"}


def state_at(step: int, **record) -> RunCheckpoint:
    """Small, and every number in it tells the step."""
    full = np.full((8, 4), step, np.float32)
    changes = {"epoch": step, "step": step, **record}
    return RunCheckpoint({"w": full, "b": full[0]}, {"w": full / 2}, {"m.w": -full}, CARD, {**RECORD, **changes})


def step_of(path: Path) -> int:
    return load(path).record["step"]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def same_bits(one, other) -> bool:
    return set(one) == set(other) and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


def test_a_state_comes_back_bit_for_bit(tmp_path):
    random_bits = np.random.default_rng(0).integers(0, 256, 4096, np.uint8)  # infinities and NaN are among them
    arrays = {
        kind: random_bits.view(kind).reshape(2, -1)
        for kind in ("int8", "uint8", "int16", "int32", "int64", "uint64", "float16", "float32", "float64")
    }
    optimizer = {
        **arrays,
        "bool": random_bits > 99,
        "scalar": np.array(7, np.int64),
        "turned": arrays["float32"].T,
        "flag": np.array(True),
        "one": np.zeros(1, np.float32),
    }
    record = {**RECORD, "best": np.float32(0.1), "scale": {"value": 2.0**-20, "third": 1 / 3}, "config": {"lr": 5e-4}}
    state = RunCheckpoint({"w": arrays["float32"]}, {"w": arrays["float16"]}, optimizer, CARD, record)
    save(tmp_path / "s.ckpt", state)
    back = load(tmp_path / "s.ckpt")
    assert same_bits(back.model, state.model)
    assert same_bits(back.ema, state.ema)
    assert same_bits(back.optimizer, state.optimizer)
    assert back.card == CARD
    assert {name: back.record[name] for name in record} == {**record, "best": float(np.float32(0.1))}
    assert (back.record["use"], back.record["model"], back.record["num_classes"]) == ("model", CARD.model, 3)
    assert all(value.flags.writeable for value in back.optimizer.values())


def test_a_record_of_an_earlier_version_is_read_under_today_s_names(tmp_path):
    save(tmp_path / "old.ckpt", state_at(4, journey={"sampled": 3}, pictures=17))
    record = checkpoints.read_record(tmp_path / "old.ckpt")
    assert record["train_state"] == {"sampled": 3}
    assert record["images"] == 17
    assert not {"journey", "pictures"} & set(record)


def test_a_state_without_an_average_stays_without(tmp_path):
    save(tmp_path / "s.ckpt", replace(state_at(1), ema=None))
    assert load(tmp_path / "s.ckpt").ema is None


@pytest.mark.parametrize("wrong", [{"use": "ema"}, {"use": "teacher"}])
def test_a_set_of_weights_that_is_not_there_cannot_be_the_default(wrong, tmp_path):
    with pytest.raises(ValueError, match="no weights to use"):
        save(tmp_path / "s.ckpt", replace(state_at(1, **wrong), ema=None))
    assert names_in(tmp_path) == []


def test_an_array_that_the_format_would_drop_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"optimizer/m: MindSpore's format cannot hold float32 of shape \(0,\)"):
        save(tmp_path / "s.ckpt", replace(state_at(1), optimizer={"m": np.zeros(0, np.float32)}))


def test_it_is_a_checkpoint_of_the_model_too(tmp_path):
    save(tmp_path / "last.ckpt", state_at(8))
    save(tmp_path / "best_ema.ckpt", state_at(8, use="ema"))
    for name, use_ema, value in (("last", False, 8), ("last", True, 4), ("best_ema", False, 4), ("best_ema", True, 4)):
        weights, card = checkpoints.read(tmp_path / f"{name}.ckpt", use_ema=use_ema)
        assert card == CARD
        assert weights["w"].min() == weights["w"].max() == value
        assert set(weights) == ({"w"} if value == 4 else {"w", "b"})


def test_a_script_gets_the_weights_of_the_model_or_their_average(checkpoint, tmp_path):
    from mindeit.weights.load import load_for_use

    weights, card = checkpoints.read(checkpoint)
    average = {name: value / 2 for name, value in weights.items()}
    save(tmp_path / "last.ckpt", RunCheckpoint(weights, average, {"m": weights["head.weight"]}, card, RECORD))
    for use_ema, expected in ((False, weights), (True, average)):
        model, found = load_for_use(tmp_path / "last.ckpt", use_ema=use_ema)
        assert found == card
        assert same_bits({p.name: p.asnumpy() for p in model.get_parameters()}, expected)


def test_an_average_that_is_not_there_is_refused_in_one_line(tmp_path):
    save(tmp_path / "s.ckpt", replace(state_at(1), ema=None))
    with pytest.raises(UserError) as error:
        checkpoints.read(tmp_path / "s.ckpt", use_ema=True)
    assert str(error.value) == f"{tmp_path / 's.ckpt'} holds no averaged weights; leave out use_ema"


def test_weights_alone_are_no_training_checkpoint(tmp_path):
    checkpoints.write(tmp_path / "w.ckpt", state_at(1).model, CARD)
    checkpoints.write(tmp_path / "w.safetensors", state_at(1).model, CARD)
    for name in ("w.ckpt", "w.safetensors"):
        with pytest.raises(UserError, match=f"{name}: not a training checkpoint; weights alone are where"):
            load(tmp_path / name)


def test_one_flipped_bit_anywhere_is_refused(tmp_path):
    path, draw = tmp_path / "s.ckpt", random.Random(0)
    save(path, state_at(5))
    whole = path.read_bytes()
    for at in [*range(40), *range(len(whole) - 40, len(whole)), *draw.choices(range(len(whole)), k=400)]:
        content = bytearray(whole)
        content[at] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        for reader in (load, checkpoints.read, checkpoints.verify):
            with pytest.raises(UserError, match="checksum .*, the file is damaged$|or truncated$"):
                reader(path)


def test_a_damaged_number_is_told_as_damage(tmp_path):
    save(tmp_path / "s.ckpt", state_at(5))
    damage(tmp_path / "s.ckpt", at=-400)
    with pytest.raises(UserError) as error:
        load(tmp_path / "s.ckpt")
    assert str(error.value) == f"{tmp_path / 's.ckpt'}: checksum does not match, the file is damaged"


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "s.ckpt"
    save(path, state_at(5))
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 7), *range(len(whole) - 30, len(whole))]:
        path.write_bytes(whole[:length])
        for reader in (load, checkpoints.read):
            with pytest.raises(UserError, match="the file is damaged$|or truncated$|is empty$"):
                reader(path)


def test_the_manager_gives_a_state_its_names_and_keeps_the_latest(tmp_path):
    manager = CheckpointManager(tmp_path / "new", interval=2, keep=2)
    for epoch in range(1, 9):
        manager.store(state_at(epoch), epoch_done=True, best=epoch in (1, 3), best_ema=epoch in (1, 6))
    manager.store(state_at(9, epoch=8, batch=3))
    assert {path.name: step_of(path) for path in (tmp_path / "new").iterdir()} == {
        "best.ckpt": 3,
        "best_ema.ckpt": 6,
        "epoch-0006.ckpt": 6,
        "epoch-0008.ckpt": 8,
        "last.ckpt": 9,
    }
    assert checkpoints.read(tmp_path / "new" / "best_ema.ckpt")[0]["w"][0, 0] == 3
    assert newest_sound(tmp_path / "new") == manager.last_good == tmp_path / "new" / "last.ckpt"


def test_each_name_is_a_file_of_its_own(tmp_path):
    CheckpointManager(tmp_path, interval=1, keep=2).store(state_at(1), epoch_done=True, best=True)
    assert {path.stat().st_nlink for path in tmp_path.iterdir()} == {1}
    damage(tmp_path / "last.ckpt", at=-300)
    assert newest_sound(tmp_path) == tmp_path / "epoch-0001.ckpt"
    assert step_of(tmp_path / "best.ckpt") == 1


def evaluated(folder: Path, keep: int = 9) -> CheckpointManager:
    """Epochs 1 to 4 with accuracies 50, 70, 60, 40 of the model and 51, 52, 53, 54 of its average."""
    manager, best = CheckpointManager(folder, interval=1, keep=keep), 0.0
    for epoch, accuracy in enumerate((50.0, 70.0, 60.0, 40.0), 1):
        figures = {"acc1": accuracy, "ema_acc1": 50.0 + epoch}
        manager.store(state_at(epoch, figures=figures), epoch_done=True, best=accuracy > best, best_ema=True)
        best = max(best, accuracy)
    return manager


@pytest.mark.parametrize(
    ("keep", "gone", "step", "accuracy"),
    [
        (9, (), 2, 70.0),  # the same state has another name
        (9, ("epoch-0002",), 3, 60.0),
        (1, ("last", "epoch-0004"), 4, 40.0),  # best_ema alone is left
    ],
)
def test_a_damaged_best_is_made_anew_from_the_best_that_is_sound(keep, gone, step, accuracy, tmp_path, capfd):
    evaluated(tmp_path, keep)
    for name in ("best", *gone):
        damage(tmp_path / f"{name}.ckpt", at=-300)
    manager = CheckpointManager(tmp_path, interval=1, keep=keep)
    assert (step_of(tmp_path / "best.ckpt"), manager.best("best.ckpt")) == (step, accuracy)
    assert load(tmp_path / "best.ckpt").record["use"] == "model"
    assert "best.ckpt was damaged or gone; made anew from " in capfd.readouterr().err
    assert step_of(newest_sound(tmp_path)) == 4


def test_a_damaged_best_average_is_made_anew_too(tmp_path):
    evaluated(tmp_path)
    (tmp_path / "best_ema.ckpt").unlink()
    assert CheckpointManager(tmp_path, interval=1, keep=9).best("best_ema.ckpt") == 54.0
    assert load(tmp_path / "best_ema.ckpt").record["use"] == "ema"
    assert checkpoints.read(tmp_path / "best_ema.ckpt")[0]["w"][0, 0] == 2


def test_a_best_that_nothing_can_replace_is_worth_nothing(tmp_path):
    save(tmp_path / "best.ckpt", state_at(3, figures={"acc1": 60.0}))
    damage(tmp_path / "best.ckpt", at=-300)
    assert CheckpointManager(tmp_path, interval=1, keep=2).best("best.ckpt") == -1.0
    save(tmp_path / "best.ckpt", state_at(3))
    assert CheckpointManager(tmp_path, interval=1, keep=2).best("best.ckpt") is None


def test_damaged_ones_are_told_and_the_next_sound_one_is_found(tmp_path, capfd):
    manager = CheckpointManager(tmp_path, interval=1, keep=3)
    for epoch in (1, 2, 3):
        manager.store(state_at(epoch), epoch_done=True, best=epoch == 1)
    (tmp_path / "last.ckpt").unlink()
    (tmp_path / "last.ckpt").write_bytes(b"")
    damage(tmp_path / "epoch-0003.ckpt", at=-300)
    os.utime(tmp_path / "best.ckpt")
    assert newest_sound(tmp_path) == tmp_path / "epoch-0002.ckpt"
    assert capfd.readouterr().err.splitlines() == [
        f"warning: {tmp_path / 'last.ckpt'}: is empty; passed over",
        f"warning: {tmp_path / 'epoch-0003.ckpt'}: checksum does not match, the file is damaged; passed over",
    ]


def test_a_folder_without_a_training_checkpoint_has_no_newest(tmp_path):
    checkpoints.write(tmp_path / "model.ckpt", state_at(1).model, CARD)
    assert newest_sound(tmp_path) is None
    assert newest_sound(tmp_path / "nowhere") is None


def test_a_run_that_went_back_is_newer_than_what_it_left(tmp_path):
    manager = CheckpointManager(tmp_path, interval=1, keep=2)
    for epoch in (1, 2, 3):
        manager.store(state_at(epoch), epoch_done=True, best=True)
    again = CheckpointManager(tmp_path, interval=1, keep=2)
    again.store(state_at(2), epoch_done=True)
    assert step_of(newest_sound(tmp_path)) == 2
    assert names_in(tmp_path) == ["best.ckpt", "epoch-0002.ckpt", "epoch-0003.ckpt", "last.ckpt"]


def test_names_that_a_kill_left_lacking_are_given_at_the_next_start(tmp_path):
    CheckpointManager(tmp_path, interval=1, keep=2).store(state_at(1), epoch_done=True, best=True, best_ema=True)
    save(tmp_path / "best.ckpt", state_at(2, count=2, places=["best.ckpt", "best_ema.ckpt", "last.ckpt"]))
    CheckpointManager(tmp_path, interval=1, keep=2, owner=False)
    assert step_of(tmp_path / "last.ckpt") == 1
    CheckpointManager(tmp_path, interval=1, keep=2)
    assert {path.name: step_of(path) for path in tmp_path.iterdir()} == {
        "best.ckpt": 2,
        "best_ema.ckpt": 2,
        "last.ckpt": 2,
        "epoch-0001.ckpt": 1,
    }
    assert load(tmp_path / "best_ema.ckpt").record["use"] == "ema"


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
import mindspore
sys.path.insert(0, sys.argv[2])
from test_run_checkpoints import names_in, state_at
from mindeit.training.run_checkpoints import CheckpointManager, load, newest_sound

folder, draw, told, midway = Path(sys.argv[1]), random.Random(1), 0, 0

def train(pipe):
    manager, found = CheckpointManager(folder, interval=1, keep=2), newest_sound(folder)
    step = load(found).record["step"] if found else 0
    while True:
        step += 1
        state = state_at(step, best=step - step % 2, best_ema=step - step % 3)
        manager.store(state, epoch_done=True, best=step % 2 == 0, best_ema=step % 3 == 0)
        os.write(pipe, step.to_bytes(4, "big"))

for trial in range(50):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        train(write)
    os.close(write)
    first = os.read(read, 4) if trial < 3 else b""  # the first ones get as far as a checkpoint
    time.sleep(draw.random() / 8)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with os.fdopen(read, "rb") as pipe:
        steps = first + pipe.read()
    told = int.from_bytes(steps[-4:], "big") or told
    midway += any(name.startswith(".") for name in names_in(folder))
    state = load(newest_sound(folder))
    step = state.record["step"]
    assert told <= step <= told + 1, (told, step)
    for value in (*state.model.values(), *(2 * v for v in state.ema.values()), *(-v for v in state.optimizer.values())):
        assert np.all(value == step)
    told = step
    if trial % 2:  # every other time the next run cleans up by itself
        CheckpointManager(folder, interval=1, keep=2)
        assert not any(name.startswith(".") for name in names_in(folder))
        for name in ("best", "best_ema"):
            if state.record[name]:
                assert load(folder / f"{name}.ckpt").record["step"] == state.record[name], name
print(told, midway)
"""


def test_fifty_kills_lose_no_checkpoint_and_leave_nothing_half_written(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    steps, midway = map(int, done.stdout.split()[-2:])
    assert steps > 5
    assert midway > 4  # many kills hit while a file was being written


@contextmanager
def largest_file(size: int):
    """The kernel cuts off every file of this process there: a write fails half way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def big_state(step: int) -> RunCheckpoint:
    return replace(state_at(step), optimizer={f"m{i}": np.full(200_000, step, np.float32) for i in range(4)})


def test_a_write_that_fails_half_way_leaves_the_earlier_files_whole(tmp_path, capfd):
    manager = CheckpointManager(tmp_path, interval=1, keep=1)
    manager.store(big_state(1), epoch_done=True, best=True, best_ema=True)
    before = names_in(tmp_path)
    with largest_file(2_000_000), pytest.raises(UserError) as error:
        manager.store(big_state(2), epoch_done=True, best=True, best_ema=True)
    assert str(error.value) == (
        f"{tmp_path / 'best.ckpt'}: cannot write: File too large; last good checkpoint: {tmp_path / 'last.ckpt'}"
    )
    assert names_in(tmp_path) == before
    assert {step_of(path) for path in tmp_path.iterdir()} == {1}
    assert "CRITICAL" not in capfd.readouterr().err


def test_the_first_write_that_fails_says_that_there_is_none_yet(tmp_path):
    manager = CheckpointManager(tmp_path, interval=1, keep=1)
    with largest_file(1000), pytest.raises(UserError, match="File too large; last good checkpoint: none yet$"):
        manager.store(big_state(1))
    assert names_in(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    """Sixteen megabytes; only root can have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_earlier_files_whole_and_the_run_goes_on_when_there_is_room(small_disk):
    manager = CheckpointManager(small_disk, interval=1, keep=1)
    manager.store(big_state(1), epoch_done=True)
    (small_disk / "filler").write_bytes(bytes(8_000_000))
    with pytest.raises(UserError) as error:
        manager.store(big_state(2), epoch_done=True)
    assert str(error.value) == (
        f"{small_disk / 'epoch-0002.ckpt'}: cannot write: No space left on device; "
        f"last good checkpoint: {small_disk / 'last.ckpt'}"
    )
    assert names_in(small_disk) == ["epoch-0001.ckpt", "filler", "last.ckpt"]
    assert step_of(small_disk / "last.ckpt") == 1
    (small_disk / "filler").unlink()
    manager.store(big_state(2), epoch_done=True)
    assert names_in(small_disk) == ["epoch-0002.ckpt", "last.ckpt"]
    assert step_of(small_disk / "last.ckpt") == 2


@contextmanager
def without_root():
    """Root may write everywhere: be nobody for a while."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


def test_a_folder_that_cannot_be_written_is_told_before_the_run():
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)
        with without_root(), pytest.raises(UserError) as error:
            CheckpointManager(name, interval=1, keep=1)
    assert str(error.value) == f"{name}/last.ckpt: cannot write there: Permission denied"


def test_leftovers_go_at_the_start_and_other_files_stay(tmp_path):
    stay = [".hidden-file.ckpt", ".last.ckpt", "model.ckpt", "notes.tmp"]
    for name in (*stay, ".last-abcd1234.ckpt", ".best_ema-abcd_234.tmp", ".epoch-0010-abcd1234.ckpt"):
        (tmp_path / name).write_text("x")
    CheckpointManager(tmp_path, interval=1, keep=1)
    assert names_in(tmp_path) == stay


def test_at_an_epochs_end_what_an_epoch_consists_of_may_change():
    check_resumable(RECORD, "x.ckpt", same={"opt": "adamw"}, division={"ranks": 1, "batch_size": 64, "seed": 5})
    inside = {**RECORD, "batch": 7}
    check_resumable(inside, "x.ckpt", same={"opt": "adamw"}, division={"ranks": 2, "batch_size": 8})
    for what, value, held in (("ranks", 1, 2), ("batch_size", 64, 8), ("accumulation", 4, 1)):
        with pytest.raises(UserError) as error:
            check_resumable(inside, "x.ckpt", same={}, division={what: value})
        assert str(error.value) == (
            f"x.ckpt: cannot be resumed with {what} {value}, it was saved with {held} inside epoch 5 (batch 7): what "
            f"is left of that epoch depends on {what}; checkpoints of an epoch's end can be resumed with another"
        )


@pytest.mark.parametrize(
    ("what", "asked", "held"),
    [("model", "deit_small_patch16_224", "deit_tiny_patch16_224"), ("num_classes", 10, 3), ("opt", "sgd", "adamw")],
)
def test_another_model_head_or_optimizer_is_refused_naming_both(what, asked, held, tmp_path):
    save(tmp_path / "x.ckpt", state_at(3))
    with pytest.raises(UserError) as error:
        check_resumable(load(tmp_path / "x.ckpt").record, "x.ckpt", same={what: asked}, division={})
    assert str(error.value) == f"x.ckpt: cannot be resumed with {what} {asked}, it was saved with {held}"
