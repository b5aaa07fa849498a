"""train.py as a user runs it: what a run leaves behind, fine-tuning, and every recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from training_runs import (
    SMALL,
    STUDENT,
    arrays,
    few_digits,
    history,
    one_block,
    script,
    train_here,
    write_images,
    write_model,
)

from mindeit.config import parse
from mindeit.factory import header
from mindeit.training import run_checkpoints
from mindeit.weights import checkpoint as checkpoints

__all__ = ["few_digits", "script"]
ONLY_STEPS = ("--val_while_train", False, "--ema", False)  # what is not compiled takes no time
PYNATIVE = ("--mode", "pynative")
CONFIG = ("--config", ROOT / "configs" / "base" / "digits.yaml")


def shown(value: str | tuple) -> str:
    """A parameter in a test's name."""
    return value if isinstance(value, str) else value[-1] if value else "graph"


# A graph takes ten seconds to compile, the same few steps operator by operator three.
also_in_a_graph = pytest.mark.parametrize("mode", [PYNATIVE, pytest.param((), marks=pytest.mark.slow)], ids=shown)


@pytest.fixture(scope="module")
def digits_run(few_digits, tmp_path_factory) -> tuple[Path, str]:
    """Two epochs on the embedded digits, and what was printed."""
    folder = tmp_path_factory.mktemp("digits_run")
    options = ("--model", STUDENT, "--batch_size", 32, "--epoch_size", 2, "--warmup_epochs", 0,
               "--ckpt_save_dir", folder / "run")  # fmt: skip
    return folder / "run", train_here(*CONFIG, *options, drawn=True)


@pytest.fixture
def small_student() -> Iterator[None]:
    with one_block():
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Three classes."""
    return write_images(tmp_path_factory.mktemp("images"), train=24)


def test_a_run_leaves_checkpoints_history_curves_and_events(digits_run):
    folder, text = digits_run
    names = {path.name for path in folder.iterdir()}
    assert names == {"last.ckpt", "best.ckpt", "best_ema.ckpt", "epoch-0001.ckpt", "epoch-0002.ckpt", "history.jsonl",
                     "curves.png", "tensorboard", "config.yaml", "log.txt", "report.html"}  # fmt: skip
    records = history(folder)
    assert [record["epoch"] for record in records] == [1, 2]
    assert [record["step"] for record in records] == [11, 22]
    assert records[1]["train_loss"] < records[0]["train_loss"]
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"
    [events] = (folder / "tensorboard").iterdir()
    assert b"ema_acc1" in events.read_bytes()
    assert re.search(rf"epoch 2/2: loss {records[1]['train_loss']:.4f}, .* Acc@1 {records[1]['acc1']:.3f} ", text)
    record = run_checkpoints.load(folder / "last.ckpt").record
    assert (record["epoch"], record["batch"], record["config"]["model"]) == (2, 0, STUDENT)


def test_a_run_tells_what_it_does_from_its_first_line_to_its_last(digits_run):
    folder, text = digits_run
    lines = text.splitlines()
    assert lines[0].startswith(f"training {STUDENT} on CPU, amp_level O0, seed 0; mindeit 0.1.0, MindSpore ")
    assert lines[1] == "data: digits, 10 classes, 360 images to train (train), 90 to evaluate (val)"
    assert re.fullmatch(rf"model: {STUDENT}, 32 pixels, 10 classes, ([\d.]+) M parameters, \1 M train, from fresh "
                        "weights", lines[2])  # fmt: skip
    assert re.fullmatch("run: 2 epochs of 11 updates of 32 images, learning rate .* in epoch 1, into "
                        f"{folder}", lines[3])  # fmt: skip
    assert [line for line in lines if line.startswith("compil")][::2] == [
        "compiling the evaluation",
        "compiling the training step",
    ]
    assert len([line for line in lines if re.fullmatch(r"compiled the .* in [\d.]+ s", line)]) == 2
    best = max(history(folder), key=lambda record: record["acc1"])
    assert f"best Acc@1 {best['acc1']:.3f} (epoch {best['epoch']}) in {folder}/best.ckpt, best EMA " in lines[-2]
    assert re.fullmatch(rf"next: python validate.py --ckpt_path {folder}/best(_ema)?.ckpt --dataset digits", lines[-1])
    assert (folder / "log.txt").read_text().splitlines()[1:] == lines


def test_the_configuration_of_a_run_is_taken_by_config(digits_run):
    folder, _ = digits_run
    again = parse(["-c", str(folder / "config.yaml")], description="")
    made = run_checkpoints.load(folder / "last.ckpt").record
    assert json.loads(json.dumps(again.flat())) == made["config"]
    text = (folder / "config.yaml").read_text()
    assert f"# command: {made['made']['command']}\n" in text
    assert f"# versions: mindeit 0.1.0, MindSpore {metadata.version('mindspore')}, NumPy " in text
    assert re.search(r"^# device: CPU, .* cores, ", text, re.M)
    assert re.search(r"^# weight_decay: 0.05 +# default$", text, re.M)


def test_a_checkpoint_is_shown(digits_run, script):
    folder, _ = digits_run
    code, out, err = script("validate", "--show", True, "--ckpt_path", folder / "best.ckpt")
    assert code == 0, err
    best = max(history(folder), key=lambda record: record["acc1"])
    for line in (
        f"model: {STUDENT}, 32 pixels",
        "classes: 10 (",
        f"epoch: {best['epoch']}; ",
        "command: python ",
        f"acc1: {best['acc1']:.4g}",
        "optimizer: adamw",
        "set: ",
    ):
        assert f"\n{line}" in f"\n{out}", out


@pytest.mark.parametrize(
    ("name", "more", "key"),
    [("last", (), "acc1"), ("last", ("--use_ema", True, *PYNATIVE), "ema_acc1"), ("best_ema", PYNATIVE, "ema_acc1")],
)
def test_validation_of_a_checkpoint_gives_the_accuracy_of_training(name, more, key, digits_run, script, tmp_path):
    folder, text = digits_run
    code, out, err = script(
        "validate", "--dataset", "digits", "--batch_size", 50, "--ckpt_path", folder / f"{name}.ckpt", *more,
        "--output", "out.json",
    )  # fmt: skip
    assert code == 0, err
    found, records = json.loads((tmp_path / "out.json").read_text()), history(folder)
    record = max(records, key=lambda one: one[key]) if name == "best_ema" else records[-1]  # the first of the best
    assert found["images"] == 90
    assert found["acc1"] == pytest.approx(record[key])
    assert found["loss"] == pytest.approx(record["val_loss" if key == "acc1" else "ema_loss"], rel=1e-5)
    label = "Acc@1" if key == "acc1" else "EMA"
    assert f"{label} {found['acc1']:.3f} " in text
    assert f"* Acc@1 {found['acc1']:.3f} " in out


def test_prediction_takes_the_checkpoints_of_a_run(digits_run, images, script, tmp_path):
    for name in ("last.ckpt", "best_ema.ckpt"):
        code, _, err = script(
            "predict", "--ckpt_path", digits_run[0] / name, images / "val" / "a", "--output", "out.json", "--mode", 1
        )
        assert code == 0, err
        found = json.loads((tmp_path / "out.json").read_text())
        assert len(found) == 5
        assert all(len(entry["predictions"]) == 5 for entry in found)


def changed(before: Path, after: Path, prefix: str = "") -> set[str]:
    """Parameters of the same shape in both that differ; of ``before`` those under ``prefix`` are looked at."""
    old, new = arrays(before), arrays(after)
    names = {name for name in new if not name.startswith(("ema/", "optimizer/"))}
    return {name for name in names if not np.array_equal(old[prefix + name], new[name])}


@also_in_a_graph
def test_fine_tuning_renews_heads_resizes_the_table_and_leaves_alone_what_is_frozen(
    mode, digits_run, images, script, tmp_path
):
    source = digits_run[0] / "last.ckpt"
    code, _, err = script(
        "train", *SMALL, "--data_dir", images, "--ckpt_path", source, "--use_ema", True, "--image_size", 48,
        "--train_mode", False, "--freeze", "patch_embed", "blocks.0", "--epoch_size", 1, "--ckpt_save_dir", "run",
        *ONLY_STEPS, *mode,
    )  # fmt: skip
    assert code == 0, err
    state, card = checkpoints.read(tmp_path / "run" / "last.ckpt")
    assert (card.num_classes, card.image_size, card.class_names) == (3, 48, ("a", "b", "c"))
    assert state["head.weight"].shape == state["head_dist.weight"].shape == (3, 128)
    assert state["pos_embed"].shape == (1, 2 + 36, 128)
    assert not [name for name in arrays(tmp_path / "run" / "last.ckpt") if name.startswith("ema/")]
    frozen = {name for name in state if name.startswith(("patch_embed.", "blocks.0."))}
    different = changed(source, tmp_path / "run" / "last.ckpt", prefix="ema/")
    assert not different & frozen
    assert different == set(state) - frozen


@also_in_a_graph
def test_attn_only_trains_attention_head_and_table(mode, digits_run, script, tmp_path):
    """On images of the checkpoint's classes, so that both heads are kept."""
    source, images = digits_run[0] / "last.ckpt", write_images(tmp_path / "ten", train=24, classes="0123456789")
    code, _, err = script(
        "train", *SMALL, "--data_dir", images, "--ckpt_path", source, "--attn_only", True, "--epoch_size", 1,
        "--ckpt_save_dir", "run", *ONLY_STEPS, *mode,
    )  # fmt: skip
    assert code == 0, err
    different = changed(source, tmp_path / "run" / "last.ckpt")
    assert all(".attn." in name or name in ("pos_embed", "head.weight", "head.bias") for name in different)
    assert {"pos_embed", "head.weight", "blocks.0.attn.qkv.weight", "blocks.1.attn.proj.bias"} <= different


RECIPES = {
    "lamb-bce": ("--opt", "lamb", "--loss", "BCE", "--bce_target_threshold", 0.2, "--lr", 0.3, "--layer_decay", 0.75),
    "sgd-soft": ("--opt", "sgd", "--lr", 1, "--distillation_type", "soft", "--distillation_tau", 3, "--clip_grad", 1,
                 "--teacher_ckpt_path", "teacher.ckpt", "--scheduler", "constant"),
    "adan-values": ("--opt", "adan", "--lr", 0.1, "--clip_grad", True, "--clip_mode", "value", "--clip_value", 0.1,
                    "--scheduler", "step_decay", "--gradient_accumulation_steps", 2),
    "lion": ("--opt", "lion", "--lr", 0.02),
}  # fmt: skip
# Each in one mode; graphs of the optimizers and of soft distillation have tests of their own.
MODES = [("lamb-bce", ()), *((name, PYNATIVE) for name in list(RECIPES)[1:])]
MODES += [pytest.param(name, (), marks=pytest.mark.slow) for name in list(RECIPES)[1:]]


@pytest.mark.parametrize(("name", "mode"), MODES, ids=shown)
def test_a_recipe_lowers_the_loss(name, mode, images, small_student, script, tmp_path):
    if "teacher.ckpt" in RECIPES[name]:
        write_model(tmp_path / "teacher.ckpt", "regnety_mini_32", 3)
    plain = ("--mixup", 0, "--cutmix", 0, "--auto_augment", "none", "--re_prob", 0, "--aug_repeats", 0)
    epochs = 2 if mode == PYNATIVE else 4  # of three steps, each of a second there
    code, _, err = script("train", *SMALL, *plain, "--data_dir", images, "--epoch_size", epochs, "--ckpt_save_dir",
                        "run", *ONLY_STEPS, *RECIPES[name], *mode)  # fmt: skip
    assert code == 0, err
    losses = [record["train_loss"] for record in history(tmp_path / "run")]
    assert len(losses) == epochs
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_a_run_that_gets_no_better_stops_early_and_has_nothing_left_to_do(images, small_student, script, tmp_path):
    options = ("--data_dir", images, *SMALL, *PYNATIVE, "--ema", False, "--lr", 1e-12, "--unscale_lr", True,
               "--min_lr", 0, "--epoch_size", 9, "--patience", 2, "--class_weights", "balanced")  # fmt: skip
    code, _, err = script("train", *options, "--ckpt_save_dir", "run")
    assert code == 0 and "early stop after epoch 3: 2 evaluations without a better accuracy" in err, err
    assert "class weights: 1 (a) to 1 (a)" in err
    assert len(history(tmp_path / "run")) == 3
    code, _, err = script("train", *options, "--ckpt_save_dir", "run", "--resume", "auto")
    assert code == 0
    assert "nothing left to do: 3 of 9 epochs are done (2 evaluations without a better accuracy, patience)" in err


@pytest.mark.parametrize("options, share", [((), "90%"), (("--ema_decay", "0.99"), None), (("--ema", "False"), None)])
def test_an_average_that_would_stay_as_it_began_is_told(options, share, capsys):
    config = parse(options, description="")
    header.say_average(config, 2656, warmup=False)
    told = capsys.readouterr().err
    assert (f"the averaged weights (EMA) still hold {share} of the initial ones" in told) == (share is not None)
    header.say_average(config, 2656, warmup=True)
    assert not capsys.readouterr().err


def test_submodels_teach_each_other(images, script, tmp_path):
    with one_block("deit_mini_patch8_32_LS"):
        code, _, err = script(
            "train", "--model", "deit_mini_patch8_32_LS", "--batch_size", 8, "--cosub", True, "--loss", "BCE",
            "--drop_path_rate", 0.3, "--warmup_epochs", 0, "--lr", 0.02, "--epoch_size", 3, "--data_dir", images,
            "--ckpt_save_dir", "run", "--mixup", 0, "--cutmix", 0,
        )  # fmt: skip
    assert code == 0, err
    losses = [record["train_loss"] for record in history(tmp_path / "run")]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("level", ["O2", pytest.param("O3", marks=pytest.mark.slow)])
def test_half_precision_finds_its_loss_scale(level, images, small_student, script, tmp_path):
    """The first scale overflows in float16: such updates are left out until it fits."""
    code, _, err = script(
        "train", *SMALL, "--data_dir", images, "--amp_level", level, "--loss_scale", 2.0**24, "--epoch_size", 6,
        "--lr", 0.02, "--ckpt_save_dir", "run", "--mixup", 0, "--cutmix", 0, *ONLY_STEPS,
    )  # fmt: skip
    assert code == 0, err
    record = run_checkpoints.load(tmp_path / "run" / "last.ckpt").record
    assert record["scale"]["dynamic"] is True
    assert 1 <= record["scale"]["value"] < 2.0**24
    assert 0 < record["step"] < 18
    losses = [record["train_loss"] for record in history(tmp_path / "run")]
    assert losses[-1] < losses[0]
