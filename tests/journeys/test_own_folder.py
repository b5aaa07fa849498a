"""Images of one's own: fine-tuned from official weights, interrupted, gone on with, validated by class, predicted."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time

from conftest import ROOT
from standins import small_models, write_official
from training_runs import STUDENT, assert_same_run, script, write_images

from mindeit.training.step import Stepper

__all__ = ["script", "small_models"]
TUNE = (
    "-c",
    ROOT / "configs" / "deit_t_cpu.yaml",
    "--data_dir",
    "flowers",
    "--ckpt_path",
    "deit_tiny.pth",
    "--mode",
    "pynative",
    "--batch_size",
    4,
    "--epoch_size",
    2,
    "--num_parallel_workers",
    1,
)


def test_fine_tune_interrupt_resume_report(script, tmp_path, monkeypatch):
    write_images(tmp_path / "flowers", train=20, val=7)
    write_official(tmp_path / "deit_tiny.pth", "deit_tiny_patch16_224", classes=1000)
    steps, whole = [], Stepper.__call__

    def interrupted(self, *batch):
        steps.append(1)
        if len(steps) == 2:  # to the thread that waits for signals: of this process, others do not block them
            [watcher] = [thread for thread in threading.enumerate() if thread.name == "signals"]
            signal.pthread_kill(watcher.ident, signal.SIGTERM)
            time.sleep(0.2)
        return whole(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "__call__", interrupted)
        code, _, err = script("train", *TUNE, "--ckpt_save_dir", "run")
    assert code == 0 and "the head starts anew for 3 classes (the weights have 1000)" in err
    assert "stopped in epoch 1 after step 4" in err  # the third step knows, and its end is read while the fourth runs
    assert not (tmp_path / "run" / "history.jsonl").exists()
    code, _, err = script("train", *TUNE, "--ckpt_save_dir", "run", "--resume", "auto")
    assert code == 0 and "epoch 2/2: loss" in err, err
    code, _, err = script("train", *TUNE, "--ckpt_save_dir", "straight")
    assert code == 0, err
    assert_same_run(tmp_path / "run", tmp_path / "straight")

    code, out, err = script("validate", "--data_dir", "flowers", "--ckpt_path", "run/best.ckpt", "--output", "r.json")
    assert code == 0, err
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["images"], [one["name"] for one in report["classes"]]) == (7, ["a", "b", "c"])
    assert f"{report['acc1']:.3f}" in out
    code, _, err = script("predict", "--ckpt_path", "run/best.ckpt", "flowers/val/a", "--output", "p.json")
    assert code == 0, err
    assert {one["name"] for one in json.loads((tmp_path / "p.json").read_text())[0]["predictions"]} == set("abc")


def test_a_plain_folder_is_divided_once_for_all_that_follows(script, tmp_path):
    write_images(tmp_path / "made", train=20, val=0)
    shutil.move(tmp_path / "made" / "train", tmp_path / "flowers")
    write_official(tmp_path / "deit_tiny.pth", "deit_tiny_patch16_224", classes=1000)
    tune = ("-c", "finetune", "--data_dir", "flowers", "--mode", "pynative", "--num_parallel_workers", 1,
            "--ckpt_path", "deit_tiny.pth", "--ckpt_save_dir", "run", "--class_weights", "balanced")  # fmt: skip
    code, _, err = script("train", *tune, "--epoch_size", 1)
    assert code == 0, err
    assert "data: flowers, 3 classes, 17 images to train (train), 3 to evaluate (val)" in err
    assert "run: 1 epochs of 4 updates of 4 images" in err
    assert "check: unreadable  0" in err and json.loads((tmp_path / "run" / "data.json").read_text())["images"] == 20
    split = (tmp_path / "run" / "split.csv").read_text()
    assert (split.count(",train\n"), split.count(",val\n")) == (17, 3)
    shutil.copyfile(tmp_path / "flowers" / "a" / "00.png", tmp_path / "flowers" / "a" / "new.png")

    code, _, err = script("train", *tune, "--epoch_size", 2, "--resume", "auto")
    assert code == 0 and "1 images are not in run/split.csv; they are left out" in err, err
    assert "epoch 2/2: loss" in err
    assert (tmp_path / "run" / "split.csv").read_text() == split
    code, out, err = script("validate", "--data_dir", "flowers", "--ckpt_path", "run/last.ckpt", "--batch_size", 4)
    assert code == 0 and out.startswith("3 images in "), err


def test_a_damaged_image_ends_a_run_before_its_first_step(script, tmp_path):
    write_images(tmp_path / "flowers", train=8, val=4)
    (tmp_path / "flowers" / "val" / "a" / "00.png").write_bytes(b"\x89PNG")
    tune = ("-c", "finetune", "--data_dir", "flowers", "--model", STUDENT, "--pretrained", False)
    code, _, err = script("train", *tune, "--num_parallel_workers", 1, "--ckpt_save_dir", "run")
    assert code == 2
    assert err.splitlines()[-1] == (
        "error: 1 of 12 images cannot be read, the first is flowers/val/a/00.png: not an image (JPEG, PNG, BMP, WebP, "
        "TIFF, PPM or GIF); repair or remove them, or give --skip_bad_images True"
    )
    assert not (tmp_path / "run").exists()


def test_a_share_to_hold_out_is_no_use_where_the_folder_is_divided(script, tmp_path):
    write_images(tmp_path / "flowers", train=8, val=4)
    code, _, err = script("train", "-c", "deit_t_cpu", "--data_dir", "flowers", "--held_out", 0.3, "--batch_size", 4)
    assert code == 2
    assert err.splitlines()[-1] == (
        "error: held_out is 0.3 (command line), but flowers has a folder 'train' of its own; leave it out"
    )
