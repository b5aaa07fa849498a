"""Options that others make meaningless are told, not ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_cases import configure, mistake

from mindeit.config.options import keys_of
from mindeit.config.rules import NEEDS
from mindeit.config.whole import SECTIONS

# what is written -> what is said: key and value, what they are without effect with, what they need
WITHOUT_EFFECT = {
    "--teacher resnet18": ("teacher resnet18", "distillation_type none", "--distillation_type hard or soft"),
    "--teacher regnety_160": ("teacher regnety_160", "distillation_type none", "--distillation_type hard or soft"),
    "--teacher_ckpt_path t.pth": (
        "teacher_ckpt_path t.pth",
        "distillation_type none",
        "--distillation_type hard or soft",
    ),
    "--distillation_alpha 0.3": (
        "distillation_alpha 0.3",
        "distillation_type none",
        "--distillation_type hard or soft",
    ),
    "--distillation_type hard --distillation_tau 3": (
        "distillation_tau 3.0",
        "distillation_type hard",
        "--distillation_type soft",
    ),
    "--mixup 0 --cutmix 0 --mixup_off_epoch 10": ("mixup_off_epoch 10", "mixup 0.0", "--mixup or --cutmix above 0"),
    "--mixup 0 --switch_prob 0.2": ("switch_prob 0.2", "mixup 0.0", "--mixup and --cutmix above 0"),
    "--re_prob 0 --re_value const": ("re_value const", "re_prob 0.0", "--re_prob above 0"),
    "--src --scale 0.5 1": ("scale (0.5, 1.0)", "simple_random_crop True", "--simple_random_crop False"),
    "--color_jitter 0.4": ("color_jitter 0.4", "auto_augment rand-m9-mstd0.5-inc1", "--auto_augment none or 3-augment"),
    "--momentum 0.8": ("momentum 0.8", "opt adamw", "--opt sgd"),
    "--opt lion --eps 1e-6": ("eps 1e-06", "opt lion", "--opt adamw, lamb or adan"),
    "--opt sgd --betas 0.9 0.99": ("betas (0.9, 0.99)", "opt sgd", "--opt adamw, lamb, adan or lion"),
    "--clip_value 5": ("clip_value 5.0", "clip_grad False", "--clip_grad True"),
    "--loss_scale 1024": ("loss_scale 1024.0", "amp_level O0", "--amp_level O2 or O3"),
    "--ema False --ema_decay 0.9": ("ema_decay 0.9", "ema False", "--ema True"),
    "--ema False --ema_warmup True": ("ema_warmup True", "ema False", "--ema True"),
    "--scheduler constant --min_lr 1e-6": ("min_lr 1e-06", "scheduler constant", "--scheduler cosine_decay"),
    "--decay_epochs 10": ("decay_epochs 10", "scheduler cosine_decay", "--scheduler step_decay"),
    "--decay_rate 0.5": ("decay_rate 0.5", "scheduler cosine_decay", "--scheduler step_decay or multi_step_decay"),
    "--multi_step_decay_milestones 9": (
        "multi_step_decay_milestones (9,)",
        "scheduler cosine_decay",
        "--scheduler multi_step_decay",
    ),
    "--warmup_epochs 0 --warmup_factor 0.1": ("warmup_factor 0.1", "warmup_epochs 0", "--warmup_epochs above 0"),
    "--warmup_lr 1e-5 --warmup_factor 0.1": ("warmup_lr 1e-05", "warmup_factor 0.1", "--warmup_factor none"),
    "--val_while_train False --val_interval 5": ("val_interval 5", "val_while_train False", "--val_while_train True"),
    "--val_while_train False --patience 3": ("patience 3", "val_while_train False", "--val_while_train True"),
    "--distillation_type hard --teacher_ckpt_path t.ckpt --teacher_size 224": (
        "teacher_size 224",
        "teacher_ckpt_path t.ckpt",
        "--teacher_ckpt_path FILE.onnx",
    ),
    "--dataset digits --data_dir d": ("data_dir d", "dataset digits", "another --dataset than digits"),
    "--use_ema": ("use_ema True", "ckpt_path None", "--ckpt_path FILE"),
    "--train_mode False --drop_path_rate 0.2": ("drop_path_rate 0.2", "train_mode False", "--train_mode True"),
    "--device_id 2": ("device_id 2", "device_target CPU", "--device_target GPU or Ascend"),
    "--mode 1 --compile_cache c": ("compile_cache c", "mode 1", "--mode 0"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Tests run in an empty folder, so that messages name files by short paths."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("words", WITHOUT_EFFECT)
def test_an_option_without_effect_is_refused(words):
    what, beside, needed = WITHOUT_EFFECT[words]
    line = mistake(*words.split())
    assert line.startswith(f"{what} (command line) has no effect with ")
    assert f"{beside} (" in line
    assert line.endswith(f"; it needs {needed}")


def test_every_need_names_keys_of_the_schema_and_passes_the_defaults():
    known = {key.name: key.default for section, kind in SECTIONS.items() for key in keys_of(section, kind)}
    for need in NEEDS:
        assert {*need.keys, *need.others} <= set(known)
        assert any(f"--{other} " in f"{need.needed} " for other in need.others)


@pytest.mark.parametrize(
    "words",
    [
        "--teacher none",
        "--mixup 0 --cutmix 0 --mixup_off_epoch 0",
        "--color_jitter 0",
        "--momentum 0.9",
        "--distillation_type hard --distillation_tau 1",
        "--nesterov False",
        "--device_id 0",
    ],
)
def test_a_value_that_asks_for_nothing_is_no_mistake(words):
    configure(*words.split())


def test_a_later_source_may_turn_off_what_a_file_chose():
    """A distilled recipe without its teacher is a fair experiment; nobody has to take back each of its options."""
    Path("base.yaml").write_text("distillation_type: hard\nteacher: regnety_160\ndistillation_alpha: 0.4\n")
    Path("x.yaml").write_text("extends: base.yaml\nmodel: deit_tiny_distilled_patch16_224\n")
    config = configure("-c", "x.yaml", "--distillation_type", "none")
    assert (config.loss.teacher, config.loss.distillation_alpha) == (None, 0.5)
    assert (config.origins["teacher"], config.origins["distillation_type"]) == ("default", "command line")
    Path("plain.yaml").write_text("extends: base.yaml\ndistillation_type: none\n")
    assert configure("-c", "plain.yaml").loss.teacher is None


def test_a_file_that_turns_off_what_it_chooses_is_wrong():
    Path("x.yaml").write_text("distillation_type: none\nteacher: regnety_160\n")
    assert mistake("-c", "x.yaml") == (
        "teacher regnety_160 (x.yaml) has no effect with distillation_type none (x.yaml); it needs --distillation_type "
        "hard or soft"
    )


def test_what_a_script_does_not_use_is_not_judged():
    Path("x.yaml").write_text("teacher: regnety_160\nmixup: 0\ncutmix: 0\nmixup_off_epoch: 3\n")
    configure("-c", "x.yaml", sections=("run", "data", "model"))
