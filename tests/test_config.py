"""The configuration: its keys, the shipped files, which source wins, and the ways to write a value."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from config_cases import FILES, ROOT, Script, configure

from mindeit.config.options import keys_of
from mindeit.config.whole import SECTIONS

MODELS = {
    "deit_t": "deit_tiny_patch16_224",
    "deit_t_distilled": "deit_tiny_distilled_patch16_224",
    "deit_s": "deit_small_patch16_224",
    "deit_s_distilled": "deit_small_distilled_patch16_224",
    "deit_b": "deit_base_patch16_224",
    "deit_b_distilled": "deit_base_distilled_patch16_224",
    "deit_b_384": "deit_base_patch16_384",
    "deit_b_distilled_384": "deit_base_distilled_patch16_384",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Tests run in an empty folder, so that messages name files by short paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- the schema ---------------------------------------------------------------------------------------------------


def test_every_key_has_one_home_and_one_meaning():
    names = [
        name
        for section, kind in SECTIONS.items()
        for key in keys_of(section, kind)
        for name in (key.name, *key.option.aliases)
    ]
    assert sorted(names) == sorted(set(names))
    assert not {"config", "print_config", "help", "extends"} & set(names)


def test_every_default_survives_its_own_rules():
    config = configure()
    keys = [key for section, kind in SECTIONS.items() for key in keys_of(section, kind)]
    written = [
        f"--{key.name}={' '.join(map(str, key.default)) if isinstance(key.default, tuple) else key.default}"
        for key in keys
    ]
    assert configure(*written).flat() == config.flat()


def test_defaults_are_the_official_recipe():
    config = configure()
    assert (config.schedule.epoch_size, config.schedule.lr, config.schedule.min_lr) == (300, 5e-4, 1e-5)
    assert (config.schedule.warmup_epochs, config.schedule.warmup_lr) == (5, 1e-6)
    assert (config.optim.opt, config.optim.weight_decay, config.optim.eps) == ("adamw", 0.05, 1e-8)
    assert (config.augment.mixup, config.augment.cutmix, config.augment.aug_repeats) == (0.8, 1.0, 3)
    assert (config.model.drop_path_rate, config.loss.label_smoothing, config.optim.ema_decay) == (0.1, 0.1, 0.99996)
    assert config.data.image_size is config.data.crop_pct is config.model.model is config.model.num_classes is None


def test_image_resize_is_another_word_for_image_size(tmp_path):
    (tmp_path / "old.yaml").write_text("image_resize: 48\n")
    assert configure("-c", str(tmp_path / "old.yaml")).data.image_size == 48
    assert configure("--image_resize", "64").data.image_size == 64
    assert configure("-c", str(tmp_path / "old.yaml"), "--image-size", "64").data.image_size == 64


def test_the_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        configure().data.batch_size = 3


# -- the shipped files --------------------------------------------------------------------------------------------


def test_there_is_a_file_for_each_model_and_device():
    assert set(FILES) >= {f"configs/{name}_{device}.yaml" for name in MODELS for device in ("gpu", "ascend", "cpu")}


@pytest.mark.parametrize("name", FILES)
def test_shipped_file_parses(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = configure("-c", name)
    assert name in config.origins.values()


@pytest.mark.parametrize("short", MODELS)
@pytest.mark.parametrize("device", ["gpu", "ascend", "cpu"])
def test_shipped_file_holds_its_recipe(short, device, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = configure("-c", f"configs/{short}_{device}.yaml")
    fine_tuning, distilled, cpu = "384" in short, "distilled" in short, device == "cpu"
    assert config.model.model == MODELS[short]
    assert config.run.device_target.lower() == device
    assert config.run.amp_level == ("O0" if cpu else "O2")
    assert config.data.batch_size == (32 if cpu else 64 if fine_tuning else 128)
    if cpu:
        return
    schedule, optim = config.schedule, config.optim
    assert (schedule.epoch_size, schedule.lr, schedule.min_lr, optim.weight_decay, config.train.train_mode) == (
        (30, 5e-6, 5e-6, 1e-8, False) if fine_tuning else (300, 5e-4, 1e-5, 0.05, True)
    )
    assert config.loss.distillation_type == ("hard" if distilled else "none")
    assert (config.loss.distillation_alpha, config.loss.distillation_tau, config.loss.teacher) == (
        0.5,
        1.0,
        "regnety_160" if distilled else None,
    )
    assert (config.augment.re_prob, config.augment.re_value, config.augment.auto_augment) == (
        0.25,
        "pixel",
        "rand-m9-mstd0.5-inc1",
    )


@pytest.mark.parametrize(
    ("short", "model", "recipe"),
    [  # in the order of the values below
        ("deit3_s", "deit_small_patch16_LS", (256, None, 800, "lamb", 4e-3, 0.05, 0.05, "BCE", "3-augment", 3)),
        ("deit3_h", "deit_huge_patch14_LS", (256, 160, 800, "lamb", 3e-3, 0.05, 0.6, "BCE", "3-augment", 3)),
        (
            "deit3_b_384",
            "deit_base_patch16_LS",
            (64, 384, 20, "adamw", 1e-5, 0.1, 0.15, "CE", "rand-m9-mstd0.5-inc1", 0),
        ),
        ("deit3_l_21k", "deit_large_patch16_LS", (256, None, 240, "lamb", 1e-3, 0.02, 0.3, "CE", "3-augment", 0)),
        ("deit3_l_21k_1k", "deit_large_patch16_LS", (256, None, 50, "lamb", 3e-4, 0.02, 0.4, "CE", "3-augment", 0)),
        ("cait_s24", "cait_S24_224", (128, None, 400, "adamw", 5e-4, 0.05, 0.1, "CE", "rand-m9-mstd0.5-inc1", 3)),
        ("cait_s36_384", "cait_S36", (64, None, 60, "adamw", 5e-6, 0.05, 0.1, "CE", "rand-m9-mstd0.5-inc1", 3)),
        ("resmlp_12", "resmlp_12", (256, None, 400, "lamb", 5e-3, 0.2, 0.05, "CE", "rand-m9-mstd0.5-inc1", 3)),
        ("resmlp_24", "resmlp_24", (256, None, 400, "lamb", 5e-3, 0.2, 0.1, "CE", "rand-m9-mstd0.5-inc1", 3)),
        ("resmlp_b24", "resmlpB_24", (256, None, 400, "lamb", 5e-3, 0.2, 0.1, "CE", "rand-m9-mstd0.5-inc1", 3)),
        ("patchconvnet_s60", "S60", (256, None, 400, "lamb", 3e-3, 0.05, 0.1, "CE", "rand-m9-mstd0.5-inc1", 3)),
    ],
)
@pytest.mark.parametrize("device", ["gpu", "ascend"])
def test_shipped_file_of_the_zoo_holds_its_recipe(short, model, recipe, device, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = configure("-c", f"configs/{short}_{device}.yaml")
    assert (config.model.model, config.run.device_target.lower()) == (model, device)
    assert recipe == (
        config.data.batch_size * config.optim.gradient_accumulation_steps,
        config.data.image_size,
        config.schedule.epoch_size,
        config.optim.opt,
        config.schedule.lr,
        config.optim.weight_decay,
        config.model.drop_path_rate,
        config.loss.loss,
        config.augment.auto_augment,
        config.augment.aug_repeats,
    )
    assert config.augment.simple_random_crop is ("21k" in short)
    assert config.schedule.unscale_lr is not short.startswith("cait")


def test_submodels_teach_each_other_where_the_file_says_so(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert [configure("-c", f"configs/deit3_s{kind}_gpu.yaml").loss.cosub for kind in ("", "_cosub")] == [False, True]


@pytest.mark.parametrize("name", [name for name in FILES if "/base/" not in name])
def test_the_commands_in_a_files_head_parse(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    head = re.sub(r"\\\n# *", "", Path(name).read_text())
    assert re.search(r"^# Expected: .* % .*\((published|measured)\)", head, re.M)
    commands = re.findall(r"^# (?:Train|Tune|Validate): *(.*)$", head, re.M)
    assert commands
    for command in commands:
        words = shlex.split(command)
        argv = words[words.index("python") + 2 :]
        assert name in argv
        data = configure(*argv).data
        assert data.dataset == "digits" or data.data_dir.startswith("/data/")


# -- precedence ---------------------------------------------------------------------------------------------------


def test_defaults_then_base_then_file_then_command_line():
    Path("recipes").mkdir()
    Path("recipes/base.yaml").write_text("extends: first.yaml\nlr: 1e-3\nbatch_size: 1\nepoch_size: 1\n")
    Path("recipes/first.yaml").write_text("lr: 1\nseed: 7\n")
    Path("x.yaml").write_text("batch_size: 2\nextends: recipes/base.yaml\nepoch_size: 2\n")
    config = configure("--epoch_size", "3", "--config", "x.yaml")
    assert (config.schedule.lr, config.data.batch_size, config.schedule.epoch_size) == (1e-3, 2, 3)
    assert {key: config.origins[key] for key in ("seed", "lr", "batch_size", "epoch_size")} == {
        "seed": "recipes/first.yaml",
        "lr": "recipes/base.yaml",
        "batch_size": "x.yaml",
        "epoch_size": "command line",
    }


def test_extends_is_relative_to_the_file():
    Path("recipes").mkdir()
    Path("recipes/base.yaml").write_text("lr: 1e-3\n")
    Path("recipes/x.yaml").write_text("extends: base.yaml\n")
    assert configure("-c", "recipes/x.yaml").origins["lr"] == "recipes/base.yaml"


def test_the_last_of_two_options_counts():
    assert configure("--lr", "1", "--lr=2").schedule.lr == 2.0


# -- spellings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["True", "true", "TRUE", "1", "yes", "on"])
@pytest.mark.parametrize("key", ["distributed", "distribute"])
def test_words_for_true(word, key):
    Path("x.yaml").write_text(f"{key}: {word}\n")
    assert configure("-c", "x.yaml").run.distributed is True
    assert configure(f"--{key}", word).run.distributed is True
    assert configure(f"--{key}={word}").run.distributed is True


@pytest.mark.parametrize("word", ["False", "false", "FALSE", "0", "no", "off"])
def test_words_for_false(word):
    Path("x.yaml").write_text(f"ema: {word}\n")
    assert configure("-c", "x.yaml").optim.ema is False
    assert configure("--ema", word).optim.ema is False


def test_a_bare_boolean_is_true_and_leaves_the_next_word_alone():
    config = configure("--summary", "bird.jpg", "--pretrained", "--model", "S60", "--skip_bad_images", script=Script)
    assert config.script == Script(images=("bird.jpg",), summary=True)
    assert config.model.pretrained and config.data.skip_bad_images


def test_hyphens_do_for_underscores():
    assert configure("--data-dir", "a-b_c").data.data_dir == "a-b_c"


@pytest.mark.parametrize(
    "words",
    [
        ["--mean", "0.5", ".25", "1"],
        ["--mean", "0.5,0.25,1"],
        ["--mean=[0.5, 0.25, 1]"],
        ["--mean", "[0.5,", "0.25,", "1]"],
        ["--mean", "(0.5 0.25 1)"],
    ],
)
def test_lists_on_the_command_line(words):
    assert configure(*words).data.mean == (0.5, 0.25, 1.0)


@pytest.mark.parametrize("text", ["[0.5, 0.25, 1]", "0.5, 0.25, 1", "\n- 0.5\n- .25\n- 1\n"])
def test_lists_in_yaml(text):
    Path("x.yaml").write_text(f"mean: {text}\n")
    assert configure("-c", "x.yaml").data.mean == (0.5, 0.25, 1.0)


def test_a_list_takes_no_more_words_than_it_holds():
    config = configure("--mean", "0.5,0.5,0.5", "bird.jpg", "--scale", "0.1", "1", "b c.jpg", script=Script)
    assert (config.data.mean, config.augment.scale) == ((0.5, 0.5, 0.5), (0.1, 1.0))
    assert config.script.images == ("bird.jpg", "b c.jpg")


@pytest.mark.parametrize("word", ["None", "none", "null", "", "~"])
def test_words_for_nothing(word):
    Path("x.yaml").write_text(f"auto_augment: {word}\nmean: {word}\n")
    config = configure("-c", "x.yaml", "--image_size", word)
    assert config.augment.auto_augment is config.data.mean is config.data.image_size is None
    assert configure("--mean", word).data.mean is None


@pytest.mark.parametrize("text", ["5e-4", "5E-4", "0.0005", "'5e-4'", "+5.0e-04"])
def test_every_way_to_write_a_number_is_a_number(text):
    Path("x.yaml").write_text(f"lr: {text}\n")
    assert configure("-c", "x.yaml").schedule.lr == 5e-4


def test_choices_in_any_case_and_mindcv_words():
    config = configure(
        "--device_target",
        "ascend",
        "--mode",
        "pynative",
        "--dataset",
        "imagenet",
        "--re_value",
        "random",
        "--scheduler",
        "cosine",
        "--amp_level",
        "BF16",
        "--cutmix_prob",
        "0.5",
    )
    assert (config.run.device_target, config.run.mode, config.data.dataset) == ("Ascend", 1, "image_folder")
    assert (config.augment.re_value, config.schedule.scheduler) == ("pixel", "cosine_decay")
    assert (config.run.amp_level, config.augment.mixup_prob) == ("bf16", 0.5)


def test_words_after_two_hyphens_are_never_options():
    assert configure("--", "--lr", script=Script).script.images == ("--lr",)


def test_file_names_of_all_kinds_are_text():
    name = "Bild 1\u202fä.jpg"
    assert configure(name, "--data_dir", "2024", script=Script).script.images == (name,)
    Path("x.yaml").write_text("data_dir: 2024\nckpt_path: 2024-01-01\n")
    config = configure("-c", "x.yaml")
    assert (config.data.data_dir, config.model.ckpt_path) == ("2024", "2024-01-01")
