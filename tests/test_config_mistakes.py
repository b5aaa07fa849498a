"""Mistakes in a configuration: one line each, all at once; and one script's own options."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from config_cases import NeedyScript, Script, configure, mistake, mistake_in


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Tests run in an empty folder, so that messages name files by short paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def recursion_limit():
    """Python's own, which holds where a script reads its options; MindSpore raises it, where others import it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


# -- mistakes: one line each, all at once -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--drop-pat-rate", "0.1"], "unknown option '--drop-pat-rate' (nearest: 'drop_path_rate')"),
        (["-x"], "unknown option '-x'"),
        (["--lr", "ten"], "--lr is 'ten', allowed: a number, above 0"),
        (["--lr", "inf"], "--lr is 'inf', allowed: a number, above 0"),
        (["--lr", "0"], "--lr is '0', allowed: a number, above 0"),
        (["--hflip", "1.01"], "--hflip is '1.01', allowed: a number, at least 0 and at most 1"),
        (["--lr", "-1"], "--lr is '-1', allowed: a number, above 0"),
        (["--lr"], "'--lr' needs a value"),
        (["--lr", "--seed", "1"], "'--lr' needs a value"),
        (["--epoch_size", "3.0"], "--epoch_size is '3.0', allowed: a whole number, at least 1"),
        (
            ["--aug_repeats", "9223372036854775808"],
            "--aug_repeats is '9223372036854775808', allowed: a whole number, at least 0",
        ),
        (["--epoch_size", "True"], "--epoch_size is 'True', allowed: a whole number, at least 1"),
        (["--epoch_size", "0"], "--epoch_size is '0', allowed: a whole number, at least 1"),
        (["--drop_path_rate", "1"], "--drop_path_rate is '1', allowed: a number, at least 0 and below 1"),
        (["--ema=maybe"], "--ema is 'maybe', allowed: True or False"),
        (["--opt", "adam"], "--opt is 'adam', allowed: adamw, lamb, sgd, adan or lion"),
        (["--mode", "2"], "--mode is '2', allowed: 0 or 1"),
        (
            ["--mean", "0.5", "0.5"],
            "--mean is '[0.5, 0.5]', allowed: 3 numbers, at least 0 and at most 1, or all of 255, or None",
        ),
        (
            ["--mean", "123.7,0.456,103"],
            "--mean is '[123.7, 0.456, 103]', allowed: 3 numbers, at least 0 and at most 1, or all of 255, or None",
        ),
        (
            ["--std", "256,58,57"],
            "--std is '[256, 58, 57]', allowed: 3 numbers, above 0 and at most 1, or all of 255, or None",
        ),
        (["--scale", "1", "0.08"], "--scale is '[1, 0.08]', allowed: 2 numbers, above 0 and at most 1, ascending"),
        (["--image_size", "big"], "--image_size is 'big', allowed: a whole number, at least 1, or None"),
        (["--val_split", ""], "--val_split is '', allowed: one line of text"),
        (["--data_dir", "a\nb"], r"--data_dir is 'a\nb', allowed: one line of text, or None"),
        (["--model", "m" * 100 + "\0"], f"--model is '{'m' * 57}...', allowed: one line of text, or None"),
        (["bird.jpg"], "'bird.jpg' belongs to no option"),
        (["--print_config=maybe"], "--print_config is 'maybe', allowed: True or False"),
        (["--extends", "x.yaml"], "unknown option '--extends'"),
    ],
)
def test_mistake_on_the_command_line(argv, message):
    assert mistake(*argv) == f"command line: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1\ndroppath_rate: 0.1\n", "x.yaml:2: unknown key 'droppath_rate' (nearest: 'drop_path_rate')"),
        ("epoch_size: ten\n", "x.yaml:1: epoch_size is 'ten', allowed: a whole number, at least 1"),
        ("epoch_size: true\n", "x.yaml:1: epoch_size is 'true', allowed: a whole number, at least 1"),
        ("epoch_size: 3.0\n", "x.yaml:1: epoch_size is '3.0', allowed: a whole number, at least 1"),
        ("epoch_size: [3]\n", "x.yaml:1: epoch_size is '[3]', allowed: a whole number, at least 1"),
        ("epoch_size:\n", "x.yaml:1: epoch_size is '', allowed: a whole number, at least 1"),
        ("lr: .nan\n", "x.yaml:1: lr is '.nan', allowed: a number, above 0"),
        ("lr: {a: 1}\n", "x.yaml:1: 'lr' holds a nested block, allowed: a value or a flat list"),
        ("mean: [[1], 2, 3]\n", "x.yaml:1: 'mean' holds a nested block, allowed: a value or a flat list"),
        ("lr: 1\nseed: 2\nlr: 1\n", "x.yaml:3: 'lr' is given twice, first in line 1"),
        ("distribute: 1\ndistributed: 1\n", "x.yaml:2: 'distributed' is given twice, first in line 1"),
        ("- lr\n- 1\n", "x.yaml: not a configuration: allowed are lines of 'key: value'"),
        ("lr\n", "x.yaml: not a configuration: allowed are lines of 'key: value'"),
        ("lr: 1\nseed: [1\n", "x.yaml:3: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("lr: 1\n---\nlr: 2\n", "x.yaml:2: not valid YAML: but found another document"),
        ("lr: *there\n", "x.yaml:1: not valid YAML: found undefined alias 'there'"),
        ("lr: \x07\n", "x.yaml: not valid YAML: special characters are not allowed"),
        ('model: "\\UFFFFFFFF"\n', "x.yaml: not valid YAML: Python int too large to convert to C int"),
        pytest.param("lr: " + "[" * 5000, "x.yaml: not a configuration: nested too deeply", id="nested"),
        ("#" * 100_001, "x.yaml: not a configuration: larger than 100000 bytes"),
        ("extends: [a.yaml]\n", "x.yaml:1: 'extends' allows the path of one YAML file"),
        ("seed: 1\nextends: b.yaml\n", "x.yaml:2: extends: b.yaml: no such file (nearest: 'x.yaml')"),
        ("extends: x.yaml\n", "x.yaml:1: 'extends' leads back to x.yaml"),
        (
            "model: !!python/object/apply:os.system [ls]\n",
            "x.yaml:1: model is '[ls]', allowed: one line of text, or None",
        ),
        ("config: y.yaml\n", "x.yaml:1: unknown key 'config'"),
        ("top_k: 3\n", "x.yaml:1: unknown key 'top_k'"),
    ],
)
def test_mistake_in_a_file(text, message):
    assert mistake_in(text) == message


def test_files_that_extend_each_other_are_named():
    Path("base.yaml").write_text("lr: 1\nextends: x.yaml\n")
    assert mistake_in("extends: base.yaml\n") == "base.yaml:2: 'extends' leads back to x.yaml"


def test_a_file_that_cannot_be_read():
    Path("weights.ckpt").write_bytes(b"\x80\x02}q\x00" * 10)
    Path("deit_t.yaml").write_text("lr: 1\n")
    Path("folder").mkdir()
    assert mistake("-c", "weights.ckpt") == "weights.ckpt: not a text file"
    assert mistake("-c", "folder") == "folder: cannot be read: Is a directory"
    assert mistake("-c", "diet_t.yaml") == "diet_t.yaml: no such file (nearest: 'deit_t.yaml')"
    assert mistake("-c", "no/x.yaml") == "no/x.yaml: no such file"
    assert mistake("-c", "deit_t.yaml/x.yaml") == "deit_t.yaml/x.yaml: cannot be read: Not a directory"


def test_a_named_pipe_is_refused_and_the_shells_pipes_are_read():
    os.mkfifo("x.yaml")
    assert mistake("-c", "x.yaml") == "x.yaml: a named pipe, which may never end; allowed: a file"
    reader, writer = os.pipe()
    os.write(writer, b"lr: 3\n")
    os.close(writer)
    assert configure("-c", f"/dev/fd/{reader}").schedule.lr == 3
    os.close(reader)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            "--amp_level bf16 --device_target GPU",
            "amp_level bf16 (command line), device_target GPU (command line): "
            "MindSpore has no bfloat16 kernels there; allowed: O0, O2 or O3",
        ),
        (
            "--cosub",
            "cosub True (command line), loss CE (default): submodels learn by binary cross entropy, from labels as "
            "from each other; allowed: loss BCE",
        ),
        (
            "--cosub --loss BCE --distillation_type hard",
            "cosub True (command line), distillation_type hard (command line): "
            "submodels teach each other or a teacher does; leave one out",
        ),
        (
            "--device_id 0 --distributed",
            "device_id 0 (command line), distributed True (command line): "
            "the ranks would share one device; leave device_id out",
        ),
        (
            "--dataset cifar10 --label_file l.txt",
            "label_file l.txt (command line) has no effect with dataset cifar10 (command line); it needs "
            "--dataset image_folder",
        ),
        (
            "--pretrained --model S60 --ckpt_path p",
            "pretrained True (command line), ckpt_path p (command line): two sources of the first weights; "
            "leave one out",
        ),
        (
            "--pretrained",
            "pretrained True (command line), model None (default): pretrained weights need the name of a model",
        ),
        ("--betas 0.9", "opt adamw (default), betas (0.9,) (command line): adan takes 3 betas, the others 2"),
        (
            "--unscale_lr --lr 1e-6",
            "unscale_lr True (command line), scheduler cosine_decay (default), lr 1e-06 (command line), "
            "min_lr 1e-05 (default): the learning rate would rise; allowed: min_lr at most lr",
        ),
        (
            "--bce_target_threshold 0.2",
            "bce_target_threshold 0.2 (command line) has no effect with loss CE (default); it needs --loss BCE",
        ),
        (
            "--loss BCE --bce_target_threshold 0",
            "bce_target_threshold 0.0 (command line), label_smoothing 0.1 (default): every class of a smoothed target "
            "is above 0, so each would become 1",
        ),
        (
            "--class_weights balanced 2",
            "class_weights ('balanced', '2') (command line): allowed: balanced, or a number above 0 for each class",
        ),
        (
            "--class_weights 1 0.5 0",
            "class_weights ('1', '0.5', '0') (command line): allowed: balanced, or a number above 0 for each class",
        ),
        (
            "--cosub --loss BCE --drop_path_rate 0",
            "cosub True (command line), drop_path_rate 0.0 (command line), train_mode True (default): the submodels "
            "are drawn by drop path, without it they are the same",
        ),
    ],
)
def test_impossible_combination(argv, message):
    assert mistake(*argv.split()) == message


@pytest.mark.parametrize(
    "argv",
    [
        "--distillation_type hard --model deit_tiny_distilled_patch16_224",
        "--distillation_type hard",
        "--amp_level bf16 --device_target Ascend",
        "--opt adan --betas 0.98 0.92 0.99",
        "--lr 1e-6",
        "--loss BCE --bce_target_threshold 0.2",
        "--class_weights 1 0.5 2e-1",
        "--unscale_lr --lr 1e-6 --scheduler constant",
        "--distributed",
        "--device_id 1 --device_target GPU",
        "--hflip 1",
        "--hflip 0",
        "--seed 4294967295",
    ],
)
def test_possible_combination(argv):
    assert configure(*argv.split()).flat() != configure().flat()


def test_a_combination_counts_only_where_the_script_uses_its_keys():
    Path("x.yaml").write_text("cosub: True\nloss: CE\n")
    config = configure("-c", "x.yaml", sections=("run", "data", "model"))
    assert config.loss.cosub
    assert "submodels learn by binary cross entropy" in mistake("-c", "x.yaml", sections=("model", "loss"))


def test_all_mistakes_come_at_once():
    Path("base.yaml").write_text("seed: x\n")
    words = ("--amp_level", "bf16", "--device_target", "GPU", "--lr", "-1", "--qqqq")
    text = mistake_in("extends: base.yaml\nepoch_sise: 3\nlr: fast\n", *words)
    assert text.splitlines() == [
        "6 mistakes",
        "  x.yaml:2: unknown key 'epoch_sise' (nearest: 'epoch_size')",
        "  command line: unknown option '--qqqq'",
        "  base.yaml:1: seed is 'x', allowed: a whole number, at least 0 and below 4294967296",
        "  x.yaml:3: lr is 'fast', allowed: a number, above 0",
        "  command line: --lr is '-1', allowed: a number, above 0",
        "  amp_level bf16 (command line), device_target GPU (command line): "
        "MindSpore has no bfloat16 kernels there; allowed: O0, O2 or O3",
    ]


def test_thousands_of_mistakes_are_counted_but_not_all_shown():
    lines = mistake_in("".join(f"word{i}: 1\n" for i in range(1000))).splitlines()
    assert (lines[0], lines[1][:29], lines[-1], len(lines)) == (
        "1000 mistakes",
        "  x.yaml:1: unknown key 'word",
        "  and 960 more",
        42,
    )


def test_a_wrong_value_is_not_judged_again_in_combination():
    assert mistake("--amp_level", "bf16", "--device_target", "TPU") == (
        "command line: --device_target is 'TPU', allowed: CPU, GPU or Ascend"
    )


# -- one script's own options -------------------------------------------------------------------------------------


def test_a_door_has_its_own_options():
    config = configure("a.jpg", "--top-k=3", "b.jpg", "--output", "o.json", script=Script, sections=("model",))
    assert config.script == Script(images=("a.jpg", "b.jpg"), output="o.json", top_k=3)
    assert (config.origins["top_k"], config.origins["summary"]) == ("command line", "default")
    assert mistake("--top_k", "0", script=Script) == "command line: --top_k is '0', allowed: a whole number, at least 1"


def test_a_script_offers_only_the_sections_it_uses():
    assert mistake("--epoch_size", "3", sections=("model",)) == (
        "command line: '--epoch_size' is an option of other scripts, not of this one"
    )
    assert mistake("--drop_rate", "0.5", sections=("model",), without=("drop_rate",)) == (
        "command line: '--drop_rate' is an option of other scripts, not of this one"
    )
    assert "command line: unknown option '-c'" in mistake("-c", "x.yaml", script=NeedyScript, sections=())


def test_a_required_option_must_be_there():
    assert mistake(script=NeedyScript, sections=()) == "command line: --input is missing (file to read)"


def test_a_door_may_have_a_key_of_a_section_it_does_not_use():
    config = configure("--model", "S60", "--input", "i", script=NeedyScript, sections=())
    assert (config.script.model, config.model.model, config.origins["model"]) == ("S60", None, "command line")


def test_a_path_beyond_the_folder_is_named_as_written(folder):
    path = os.path.join("..", folder.name, "x.yaml")
    Path("x.yaml").write_text("lr: x\n")
    assert mistake("-c", path) == f"{path}:1: lr is 'x', allowed: a number, above 0"
