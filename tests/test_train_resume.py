"""A run that is stopped, by a signal or without warning, goes on as if nothing had happened: bit for bit."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from training_runs import (
    SMALL,
    arrays,
    assert_same_run,
    finish,
    plugin_models,
    script,
    start,
    train_here,
    wait_for,
    write_images,
    write_model,
)

from mindeit.training import run_checkpoints

__all__ = ["script"]
EPOCHS = 3  # of 8 batches, 4 updates


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Iterator[tuple[Path, tuple]]:
    """An uninterrupted run with all that draws random numbers, and its options."""
    folder = tmp_path_factory.mktemp("whole")
    with plugin_models(folder) as plugin:
        options = (
            *SMALL, "--plugin", plugin, "--model", "one_block_distilled", "--data_dir", write_images(folder / "images"),
            "--epoch_size", EPOCHS, "--lr", 0.05, "--aug_repeats", 3, "--drop_path_rate", 0.3,
            "--gradient_accumulation_steps", 2, "--ema_decay", 0.9, "--distillation_type", "hard", "--teacher",
            "one_block", "--teacher_ckpt_path", write_model(folder / "t.ckpt", "one_block", 3),
            "--keep_checkpoint_max", 1,
        )  # fmt: skip
        train_here(*options, "--ckpt_save_dir", folder / "run")
        yield folder / "run", options


def test_signals_save_and_the_run_goes_on_exactly(whole, tmp_path):
    """The first one mostly arrives during the last update of an epoch."""
    folder, options = whole
    options = (*options, "--ckpt_save_dir", tmp_path / "run", "--resume", "auto")
    cache = ("--compile_cache", tmp_path / "cache")  # the second one starts sooner
    stops = (signal.SIGTERM, 0, "epoch 1/3: 48/64"), (signal.SIGINT, 130, "epoch 2/3: 32/64")
    for number, (sent, code, moment) in enumerate(stops):
        log = tmp_path / f"log{number}"
        process = start(log, *options, *cache)
        wait_for(moment, log, process)
        process.send_signal(sent)
        assert process.wait(60) == code, log.read_text()
        record = run_checkpoints.load(tmp_path / "run" / "last.ckpt").record
        assert record["batch"] > 0
        line = f"stopped in epoch {record['epoch'] + 1} after step {record['step']}; --resume auto goes on from there"
        assert log.read_text().splitlines()[-1] == line
    train_here(*options)
    assert_same_run(folder, tmp_path / "run")


def test_a_signal_before_the_first_update_ends_the_process_at_once(whole, tmp_path):
    _, options = whole
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
        process = start(tmp_path / "log", *options, "--ckpt_save_dir", tmp_path / "run")
        time.sleep(1.5)
        process.send_signal(number)
        assert process.wait(30) == code, (tmp_path / "log").read_text()
    assert not (tmp_path / "run" / "last.ckpt").exists()


def kill_at_random(whole: tuple, folder: Path, kills: int, seed: int) -> None:
    """Each time the newest sound checkpoint is no older than what the last process had announced."""
    reference, options = whole
    cache = ("--compile_cache", reference.parent / "cache")  # starts sooner, and computes the same
    options = (*options, "--ckpt_save_dir", folder / "run", "--resume", "auto", *cache)
    moments, done = random.Random(seed), 0
    while done < kills:
        log = folder / f"log{done}"
        process = start(log, *options)
        wait_for("/3: ", log, process)  # the first update is through
        time.sleep(moments.uniform(0, 1.5))
        process.kill()
        finished = process.wait() == 0
        done += 1
        announced = [int(line[6]) for line in log.read_text().splitlines() if "/3: loss" in line]
        newest = run_checkpoints.newest_sound(folder / "run") if (folder / "run").exists() else None
        held = run_checkpoints.load(newest).record["epoch"] if newest else 0
        assert held >= max(announced, default=0), log.read_text()
        if finished or held == EPOCHS:
            if not finished:  # killed between the last save and its record
                finish(folder / "log_of_the_end", *options)
            assert_same_run(reference, folder / "run")
            shutil.rmtree(folder / "run")
    finish(folder / "log", *options)
    assert_same_run(reference, folder / "run")


@pytest.mark.slow
def test_killed_runs_go_on_and_end_alike(whole, tmp_path):
    kill_at_random(whole, tmp_path, kills=3, seed=1)


@pytest.mark.slow
def test_twenty_kills_never_lose_a_checkpoint(whole, tmp_path):
    kill_at_random(whole, tmp_path, kills=20, seed=2)


def test_a_finished_run_has_nothing_left_to_do(whole, script, tmp_path):
    folder, options = whole
    before = (folder / "last.ckpt").read_bytes()
    code, _, err = script("train", *options, "--ckpt_save_dir", folder, "--resume", "auto")
    assert code == 0
    assert "nothing left to do: 3 of 3 epochs are done (epoch_size)\ndone before: best Acc@1 " in err
    assert "next: python validate.py --ckpt_path " in err.splitlines()[-1]
    assert (folder / "last.ckpt").read_bytes() == before
    assert arrays(folder / "last.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize("how", [("--clip_grad", True), ("--opt", "lamb")], ids=["clipped", "lamb"])
def test_a_run_with_the_norm_of_all_gradients_is_the_same_each_time(how, tmp_path):
    """In processes of their own: how MindSpore splits a sum over threads changed from one to the next."""
    options = ("-c", "deit3_digits_cpu", *how, "--loss", "CE", "--bce_target_threshold", None, "--epoch_size", 3)
    for number in range(4):
        folder = tmp_path / str(number)
        finish(tmp_path / "log", *options, "--val_interval", 3, "--report", False, "--ckpt_save_dir", folder)
        assert_same_run(tmp_path / "0", folder)
