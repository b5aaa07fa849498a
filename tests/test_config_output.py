"""What --print_config and --help print; and that no input, whatever it holds, ends in anything but one clear error."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from config_cases import FILES, ROOT, Script, configure

from mindeit.config import ALL, Config
from mindeit.config.options import keys_of
from mindeit.config.whole import SECTIONS
from mindeit.errors import UserError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Tests run in an empty folder, so that messages name files by short paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- what is printed ----------------------------------------------------------------------------------------------


def printed(capsys, *argv: str, **details) -> str:
    with pytest.raises(SystemExit) as caught:
        configure(*argv, **details)
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_print_config_says_where_each_value_came_from(capsys):
    Path("x.yaml").write_text("lr: 1e-3\n")
    text = printed(capsys, "-c", "x.yaml", "--seed", "3", "--print_config", "a.jpg", script=Script)
    lines = [re.sub(" +", " ", line) for line in text.splitlines()]
    assert {
        "# Images",
        "# images: [a.jpg] # command line",
        "lr: 0.001 # x.yaml",
        "seed: 3 # command line",
        "scale: [0.08, 1.0] # default",
        "mean: null # default",
    } <= set(lines)
    assert lines.index("# Devices and precision") < lines.index("seed: 3 # command line") < lines.index("# Data")


@pytest.mark.parametrize("name", [None, *FILES])
def test_what_print_config_prints_gives_the_same_configuration(name, capsys, folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    argv = [
        "--dataset",
        "image_folder",
        "--data_dir",
        "a # b: 'c'",
        "--freeze",
        "x",
        "y",
        "--weight_decay",
        "1e-12",
        "--label_file",
        "Bild\u202fä 😀.txt",
        *(["-c", name] if name else []),
    ]
    text = printed(capsys, *argv, "--print_config")
    (folder / "printed.yaml").write_text(text, encoding="utf-8")
    assert configure("-c", str(folder / "printed.yaml")).flat() == configure(*argv).flat()


def test_help_names_every_key_with_type_default_and_choices(capsys):
    text = re.sub(r"\s+", " ", printed(capsys, "--help", "--lr", "ten", script=Script))
    for section, kind in SECTIONS.items():
        for key in keys_of(section, kind):
            assert f" --{key.name}" in text
    assert "A test. Images images images or folders [any number of texts]" in text
    assert "--batch_size images per device and step [a whole number, at least 1] (default: 128)" in text
    assert "--device_target where to compute [CPU, GPU or Ascend] (default: CPU)" in text
    assert "--distributed, --distribute one process" in text
    assert "(default: 0.08 1)" in text
    assert "--lr" not in re.sub(r"\s+", " ", printed(capsys, "-h", sections=("model",)))


def test_help_of_a_script_imports_no_framework(folder):
    (folder / "script.py").write_text(
        "import sys\nfrom mindeit.config import parse\nfrom mindeit.errors import run_script\n"
        "@run_script\ndef main(argv):\n"
        "    try:\n        parse(argv, description='Some text.')\n"
        "    finally:\n        print(sorted({'mindspore', 'torch', 'numpy'} & set(sys.modules)))\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "script.py", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: script.py [--key value ...]\n\nSome text.\n")
    assert done.stdout.endswith("\n[]\n")
    wrong = subprocess.run([sys.executable, "script.py", "--lr", "x"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (2, "error: command line: --lr is 'x', allowed: a number, above 0\n")


# -- anything at all ----------------------------------------------------------------------------------------------


def _mutated(data: bytes, dice: random.Random) -> bytes:
    pieces = [
        b"\x00",
        b"\xff",
        b"[",
        b"{",
        b"*a",
        b"&a ",
        b"!!int ",
        b"!!python/name:os ",
        b": ",
        b"\n",
        b"\t",
        b"- ",
        b"|",
        b"1e999",
        b"9" * 5000,
        b'"\\ud800"',
        b'"\\UFFFFFFFF"',
        b"%YAML 9.9\n---\n",
        b"<<: ",
        b"? ",
        b"extends: x.yaml\n",
    ]
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(data) + 1)
        piece = dice.choice([*pieces, bytes([dice.randrange(256)]), data[dice.randrange(len(data)) :][:20]])
        data = data[:at] + piece + data[at + dice.choice([0, 0, 1, 5]) :]
    return data if dice.random() > 0.1 else bytes(dice.randrange(256) for _ in range(dice.randint(0, 200)))


@pytest.mark.parametrize("name", ["deit", "deit_distilled_384", "cpu"])
def test_whatever_a_file_holds_only_a_user_error_escapes(name):
    dice, good = random.Random(name), (ROOT / f"configs/base/{name}.yaml").read_bytes()
    outcomes = {True: 0, False: 0}
    for _ in range(150):
        Path("x.yaml").write_bytes(_mutated(good, dice))
        try:
            outcomes[isinstance(configure("-c", "x.yaml"), Config)] += 1
        except UserError as error:
            outcomes[False] += 1
            assert "x.yaml" in str(error)
            assert max(map(len, str(error).splitlines())) < 300
    assert outcomes[False] > 75


def test_whatever_a_command_line_holds_only_a_user_error_escapes():
    dice = random.Random(0)
    keys = [key for section, kind in SECTIONS.items() for key in keys_of(section, kind)]
    values = [
        "",
        "-",
        "--",
        "-1",
        "1",
        "0.5",
        "true",
        "none",
        "[",
        "a,b",
        "1,2,3",
        "nan",
        "9" * 5000,
        "\udcff",
        "\0",
        "=",
    ]
    refused = 0
    for _ in range(300):
        words = [
            dice.choice([f"--{dice.choice(keys).name}", dice.choice(values), f"--{dice.choice(keys).name}=3"])
            for _ in range(dice.randint(1, 8))
        ]
        try:
            assert isinstance(configure(*words, sections=ALL, script=Script), Config)
        except UserError as error:
            refused += 1
            assert "command line" in str(error)
    assert 0 < refused < 300
