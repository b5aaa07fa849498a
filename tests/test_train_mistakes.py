"""What bad input gets: one line, exit code 2, and nothing overwritten."""

from __future__ import annotations

import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from training_runs import (
    SMALL,
    STUDENT,
    arrays,
    assert_same_run,
    one_block,
    script,
    train_here,
    write_images,
    write_model,
)

__all__ = ["script"]


@pytest.fixture(scope="module", autouse=True)
def small_student() -> Iterator[None]:
    with one_block():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory, small_student) -> Path:
    """Images, models of several kinds, damaged files, and a run of one epoch in ``run``."""
    folder = tmp_path_factory.mktemp("place")
    write_images(folder / "images", train=24)
    write_images(folder / "gap", train=24)
    for image in (folder / "gap" / "train" / "b").iterdir():
        image.unlink()
    for split in ("train", "val"):
        shutil.copytree(folder / "images" / split, folder / "renamed" / split)
        (folder / "renamed" / split / "c").rename(folder / "renamed" / split / "d")
    (folder / "cats.txt").write_text("train/a/00.png cat\n")
    write_model(folder / "teacher.ckpt", "regnety_mini_32", 3)
    write_model(folder / "ten.ckpt", "regnety_mini_32", 10)
    write_model(folder / "plain.ckpt", "deit_tiny_patch16_224", 3)
    train_here(*options(folder), "--ckpt_save_dir", folder / "run")
    whole = (folder / "run" / "last.ckpt").read_bytes()
    (folder / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    (folder / "flipped.ckpt").write_bytes(whole[:-5000] + bytes([whole[-5000] ^ 1]) + whole[-4999:])
    (folder / "file").write_text("no folder")
    for name in ("other", "damaged", "weights", "history", "lines", "events", "curves"):
        (folder / name).mkdir()
        shutil.copyfile(folder / "run" / "last.ckpt", folder / name / "last.ckpt")
    shutil.copyfile(folder / "flipped.ckpt", folder / "damaged" / "last.ckpt")
    (folder / "weights" / "last.ckpt").unlink()
    write_model(folder / "weights" / "best.ckpt", STUDENT, 3)
    (folder / "history" / "history.jsonl").mkdir()
    (folder / "lines" / "history.jsonl").write_text("[[[\n{}\n")
    (folder / "events" / "tensorboard").write_text("no folder")
    (folder / "curves" / "curves.png").mkdir()
    return folder


def options(folder: Path) -> tuple:
    return (
        *SMALL,
        "--data_dir",
        folder / "images",
        "--epoch_size",
        1,
        "--num_parallel_workers",
        1,
        "--mode",
        "pynative",
    )


def others(folder: Path) -> tuple:
    return ("--distillation_type", "hard", "--teacher_ckpt_path", folder / "teacher.ckpt")


# what is added to a command that is right -> what the line says
MISTAKES = {
    "no data_dir": (("--data_dir", "none"), "dataset 'image_folder' needs a data_dir; only 'digits' needs none"),
    "no such data_dir": (("--data_dir", "{0}/nowhere"), "data_dir {0}/nowhere is not a folder"),
    "empty class": (("--data_dir", "{0}/gap"), "no images in {0}/gap/train/b"),
    "no such split": (("--train_split", "tarin"), "no 'tarin' folder in {0}/images"),
    "few classes": (("--num_classes", 2), "{0}/images has 3 classes, num_classes 2"),
    "other classes held out": (("--label_file", "{0}/cats.txt"),
                               "{0}/images (val): class 'cat' is none of the 3 classes of its split 'train'"),
    "resume renamed": (("--data_dir", "{0}/renamed", "--resume", "{0}/run/last.ckpt"),
                       "{0}/run/last.ckpt: cannot be resumed, class 2 is 'd' now, it was saved as 'c'"),
    "unknown model": (("--model", "deit_mini_patch8_32"), "deit_mini_patch8_32"),
    "large batch": (("--batch_size", 25), "has 24 images to train on, fewer than one step takes: batch_size 25 x 1"),
    "accumulation": (("--gradient_accumulation_steps", 4), "gradient_accumulation_steps is 4, but an epoch has 3"),
    "no folder": (("--ckpt_save_dir", "{0}/file"), "{0}/file/last.ckpt: cannot write there: "),
    "a run is there": (("--ckpt_save_dir", "{0}/run"), "{0}/run holds a run already (last.ckpt); --resume auto"),
    "another run is there": (("--ckpt_save_dir", "{0}/other", "--resume", "{0}/run/last.ckpt"),
                             "{0}/other holds a run already (last.ckpt); --resume auto"),
    "starts from what it would replace": (("--ckpt_save_dir", "{0}/weights", "--ckpt_path", "{0}/weights/best.ckpt"),
                                          "{0}/weights holds a run already (best.ckpt); "),
    "all are damaged": (("--ckpt_save_dir", "{0}/damaged", "--resume", "auto"),
                        "{0}/damaged: no sound checkpoint among last.ckpt; move them away"),
    "history is a folder": (("--ckpt_save_dir", "{0}/history", "--resume", "auto"), "history.jsonl: is a folder"),
    "history is damaged": (("--ckpt_save_dir", "{0}/lines", "--resume", "auto"), "history.jsonl: line 1 is not the"),
    "events cannot be": (("--ckpt_save_dir", "{0}/events", "--resume", "auto"), "events/tensorboard: cannot write"),
    "curves cannot be": (("--ckpt_save_dir", "{0}/curves", "--resume", "auto"), "curves.png: is a folder"),
    "no package for it": (("--tracker", "tensorboard,wandb"), "tracker wandb needs wandb (pip install wandb)"),
    "no such tracker": (("--tracker", "wand"), "--tracker is '[wand]', allowed: tensorboard, wandb or swanlab"),
    "resume nothing": (("--resume", "{0}/no.ckpt"), "{0}/no.ckpt: no such file"),
    "resume half": (("--resume", "{0}/cut.ckpt"), "{0}/cut.ckpt: "),
    "resume damaged": (("--resume", "{0}/flipped.ckpt"), "{0}/flipped.ckpt: checksum does not match"),
    "resume weights": (("--resume", "{0}/teacher.ckpt"), "{0}/teacher.ckpt: not a training checkpoint"),
    "resume another model": (("--model", "deit_tiny_patch16_224", "--image_size", 32, "--resume",
                              "{0}/run/last.ckpt"),
                             "cannot be resumed with model deit_tiny_patch16_224, it was saved with " + STUDENT),
    "resume another optimizer": (("--opt", "lion", "--resume", "{0}/run/last.ckpt"),
                                 "cannot be resumed with opt lion, it was saved with adamw"),
    "resume another size": (("--image_size", 48, "--resume", "{0}/run/last.ckpt"), "pos_embed (1, 18, 128) instead"),
    "start from damaged": (("--ckpt_path", "{0}/flipped.ckpt"), "{0}/flipped.ckpt: checksum does not match"),
    "start from another model": (("--ckpt_path", "{0}/teacher.ckpt"), f"holds regnety_mini_32, not '{STUDENT}'"),
    "freeze nothing": (("--freeze", "block.0"), "freeze names 'block.0'"),
    "freeze all": (("--attn_only", True, "--freeze", "blocks", "head", "head_dist", "pos_embed"),
                   "nothing is left to train"),
    "other classes": (("--teacher_ckpt_path", "{0}/ten.ckpt", "--distillation_type", "hard"),
                      "the teacher tells 10 classes apart, the student 3"),
    "teacher missing": (("--teacher_ckpt_path", "{0}/t.ckpt", "--distillation_type", "soft"), "{0}/t.ckpt: no such"),
    "no such teacher": (("--teacher", "regnety_061", "--distillation_type", "soft"), "teacher is 'regnety_061'"),
    "a teacher without distillation": (("--teacher_ckpt_path", "none.ckpt"),
                                       "teacher_ckpt_path none.ckpt (command line) has no effect with "
                                       "distillation_type none (default); it needs --distillation_type hard or soft"),
    "cosub of two heads": (("--cosub", True, "--loss", "BCE"), "CoSub trains models of one head"),
    "the default teacher offline": (("--distillation_type", "hard"), "cannot download http://127.0.0.1:9/regnety_160"),
}  # fmt: skip


HEADER = ("training ", "data: ", "model: ", "teacher: ", "run: ", "resumed: ")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line_before_any_work(name, place, script, tmp_path, monkeypatch):
    monkeypatch.setenv("MINDEIT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MINDEIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("mindeit.runtime.log.note", lambda line: None)  # of heads that start anew
    monkeypatch.setitem(sys.modules, "wandb", None)  # as where it is not installed
    before = contents(place)
    words, expected = MISTAKES[name]
    words = [str(word).format(place) for word in words]
    code, out, err = script("train", *options(place), "--ckpt_save_dir", "run", *words)
    assert (code, out) == (2, ""), err
    *before_it, line = err.splitlines()
    assert line.startswith("error: ")
    assert expected.format(place) in line
    assert all(told.startswith((*HEADER, "downloading ", "warning: ")) for told in before_it), err
    assert contents(place) == before
    assert not list(tmp_path.glob("run/*"))


def test_a_loss_that_is_not_finite_stops_the_run(place, script, tmp_path):
    """The weights are lost in the last update of an epoch, before any loss shows it."""
    resumed = ("--resume", place / "run" / "last.ckpt", "--epoch_size", 3, "--min_lr", 0, "--val_while_train", False)
    code, _, err = script("train", *options(place), *resumed, "--ckpt_save_dir", "run", "--lr", 1e32)
    assert code == 2
    line = err.splitlines()[-1]
    assert line.startswith("error: the ")
    assert " step " in line
    assert "(epoch 2, lr " in line
    assert line.endswith("loss scale 1); last good checkpoint: none yet")
    assert not list((tmp_path / "run").glob("*.ckpt"))


def test_weights_that_are_not_finite_are_never_saved(place, script, tmp_path):
    """One update an epoch: the loss of each is finite, what it does to the weights is not."""
    shutil.copytree(place / "run", tmp_path / "run")
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    more = ("--resume", "auto", "--epoch_size", 2, "--batch_size", 24, "--scheduler", "constant", "--lr", 3e38,
            "--unscale_lr", True, "--weight_decay", 1e10, "--val_while_train", False)  # fmt: skip
    code, _, err = script("train", *options(place), *more, "--ckpt_save_dir", "run")
    assert code == 2
    assert "error: the weights are no longer finite after step 4 (epoch 2, lr 3e+38, loss scale 1); " in err
    assert err.endswith("last good checkpoint: run/last.ckpt\n")
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before
    assert all(np.isfinite(value).all() for value in arrays(tmp_path / "run" / "last.ckpt").values())


def test_a_full_disk_keeps_the_last_good_checkpoint(place, script, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        more = ("--resume", "auto", "--epoch_size", 2, "--val_while_train", False)
        code, _, err = script("train", *options(place), "--ckpt_save_dir", "run", *more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    line = err.splitlines()[-1]
    assert line.startswith("error: run/")
    assert line.endswith("last good checkpoint: run/last.ckpt")
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before
    assert {path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")} == set()


def test_an_epoch_outlives_its_evaluation_and_a_dry_run_finds_what_would_end_it(place, script, tmp_path):
    """The last of 13 held-out images, in the second batch, cannot be read."""
    shutil.copytree(place / "images", tmp_path / "images")
    last = sorted((tmp_path / "images" / "val").rglob("*.png"))[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[:60])
    command = ("train", *options(tmp_path), "--ckpt_save_dir", "run", "--resume", "auto")
    code, _, err = script(*command, "--dry_run", True)
    assert (code, f"{last.name}" in err.splitlines()[-1]) == (2, True), err
    assert not (tmp_path / "run").exists()
    code, _, err = script(*command)
    assert code == 2
    assert "evaluated after step 3 (epoch 1, " in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith("last good checkpoint: run/last.ckpt")
    assert {path.name for path in (tmp_path / "run").glob("*.ckpt")} == {"last.ckpt"}
    last.write_bytes(whole)
    code, _, err = script(*command)
    assert code == 0, err
    assert_same_run(tmp_path / "run", place / "run")
    assert (tmp_path / "run" / "best.ckpt").exists()
    assert "images, loss" not in err  # no step was repeated
