"""convert_pt2ms.py as users run it: exit codes, messages, and what is left on the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from convert_weights import official_state, same_bits, write_pth
from training_runs import script

from mindeit.convert import parity
from mindeit.weights import checkpoint
from mindeit.weights.torch_files import read_official

__all__ = ["script"]
ROOT = Path(__file__).parent.parent
MINI, CLASSES, SIZE = "deit_mini_distilled_patch8_32", 20, 32


@pytest.fixture(scope="module")
def pth(tmp_path_factory) -> Path:
    return write_pth(tmp_path_factory.mktemp("script") / "a.pth", official_state(MINI, CLASSES, SIZE))


def process(*arguments) -> subprocess.CompletedProcess:
    """A real one: quick where no framework is imported, and once where one is."""
    return subprocess.run(
        [sys.executable, "convert_pt2ms.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def refused(script) -> Callable[..., str]:
    def call(*arguments) -> str:
        code, out, err = script("convert_pt2ms", *arguments)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        return err

    return call


def test_there_and_back_with_proof(pth, script, tmp_path):
    there = process("--input", pth, "--output", tmp_path / "a.ckpt", "--verify")
    assert (there.returncode, there.stderr) == (0, "")
    assert there.stdout.splitlines()[0].startswith(f"parity of {MINI}: PyTorch ")
    assert there.stdout.splitlines()[-1].startswith(f"wrote {tmp_path / 'a.ckpt'}: {MINI}, 35 tensors, ")
    assert there.stdout.endswith(f"{CLASSES} classes, images of {SIZE}\n")
    code, _, err = script("convert_pt2ms", "--input", tmp_path / "a.ckpt", "--output", tmp_path / "b.pth", "--to_pt")
    assert (code, err) == (0, "")
    assert same_bits(read_official(tmp_path / "b.pth"), official_state(MINI, CLASSES, SIZE))
    assert sorted(os.listdir(tmp_path)) == ["a.ckpt", "b.pth"]


def test_other_classes_and_resolution_as_safetensors(pth, script, tmp_path):
    code, _, err = script("convert_pt2ms", "--input", pth, "--output", tmp_path / "a.safetensors", "--num_classes", 3,
                        "--image_size", 48)  # fmt: skip
    assert code == 0, err
    state, card = checkpoint.read(tmp_path / "a.safetensors")
    assert (card.num_classes, card.image_size) == (3, 48)
    assert state["head_dist.weight"].shape == (3, 128)
    assert state["pos_embed"].shape == (1, 38, 128)


def test_list_prints_the_official_files():
    run = process("--list")
    assert run.returncode == 0
    assert "deit_tiny_patch16_224-a1311bcf.pth" in run.stdout


def test_help_names_every_option():
    run = process("--help")
    assert run.returncode == 0
    for option in ("input", "output", "model", "num_classes", "image_size", "use_ema", "to_pt", "verify", "list"):
        assert f"--{option}" in run.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--list"], ["--input", "a", "--output", "b"]])
def test_quick_answers_import_no_framework(arguments):
    code = (
        "import sys, runpy, atexit\n"
        "atexit.register(lambda: print('\\nimported:', {'torch', 'mindspore'} & set(sys.modules)))\n"
        "runpy.run_path('convert_pt2ms.py', run_name='__main__')\n"
    )
    run = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.stdout.endswith("imported: set()\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--imput", "a.pth"], "command line: unknown option '--imput' (nearest: 'input')"),
        (["--inp", "a.pth"], "command line: unknown option '--inp' (nearest: 'input')"),
        ([], "--input and --output are needed"),
        (["--input", "a.pth", "--output", "b.txt"], "ends in '.txt'; allowed: .ckpt, .safetensors"),
        (["--input", "a.pth", "--output", "b.ckpt", "--to_pt"], "allowed: .pth, .pt, .bin, .safetensors"),
        (
            ["--input", "a.pth", "--output", "b.ckpt", "--num_classes", "ten"],
            "command line: --num_classes is 'ten', allowed: a whole number, at least 0, or None",
        ),
        (["--input", "none.pth", "--output", "b.ckpt"], "none.pth"),
        (["--input", "setup.cfg", "--output", "/dev/null/b.ckpt"], "cannot be written"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, words, refused):
    assert words in refused(*arguments)


def test_all_mistakes_come_at_once(script):
    code, _, err = script(
        "convert_pt2ms", "--input", "a.pth", "--model", "deit_tiny", "--num_classes", "ten", "--verfy"
    )
    assert (code, len(err.splitlines())) == (2, 4)
    assert err.startswith("error: 3 mistakes\n")


def test_output_that_is_the_input_or_a_folder_is_refused(pth, refused, tmp_path):
    same = tmp_path / "same.safetensors"
    same.write_bytes(b"kept")
    assert "are the same file" in refused("--input", same, "--output", same)
    assert same.read_bytes() == b"kept"
    (tmp_path / "folder.ckpt").mkdir()
    assert "is a folder" in refused("--input", pth, "--output", tmp_path / "folder.ckpt")


def test_malicious_file_writes_nothing_and_runs_nothing(refused, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    torch.save({"model": {"a": torch.ones(1)}, "x": Trap()}, tmp_path / "a.pth")
    text = refused("--input", tmp_path / "a.pth", "--output", tmp_path / "a.ckpt")
    assert f"holds a call of '{os.mkdir.__module__}.mkdir', which could run code or fill the memory: refused" in text
    assert os.listdir(tmp_path) == ["a.pth"]


def test_weights_that_do_not_fit_write_nothing(refused, tmp_path):
    state = dict(official_state(MINI, CLASSES, SIZE))
    state["more"] = state.pop("norm.bias")
    text = refused("--input", write_pth(tmp_path / "a.pth", state), "--output", tmp_path / "new" / "a.ckpt")
    assert "1 missing: norm.bias; 1 unexpected: more" in text
    assert os.listdir(tmp_path) == ["a.pth"]


def test_a_difference_is_exit_code_1_and_leaves_the_old_file(pth, script, tmp_path, monkeypatch):
    def altered(state, card, way_back=parity.to_official):
        return {**way_back(state, card), "norm.bias": np.ones(128, np.float32)}

    monkeypatch.setattr(parity, "to_official", altered)
    (tmp_path / "a.ckpt").write_bytes(b"old")
    code, out, err = script("convert_pt2ms", "--input", pth, "--output", tmp_path / "a.ckpt", "--verify")
    assert code == 1
    assert "DIFFERENT" in out
    assert err == f"nothing was written to {tmp_path / 'a.ckpt'}: PyTorch and MindSpore differ\n"
    assert (tmp_path / "a.ckpt").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_weights_that_are_not_finite_are_not_converted(script, tmp_path):
    state = {**official_state(MINI, CLASSES, SIZE), "norm.bias": np.full(128, np.nan, np.float32)}
    path = write_pth(tmp_path / "a.pth", state)
    code, _, err = script("convert_pt2ms", "--input", path, "--output", tmp_path / "a.ckpt")
    assert (code, err) == (
        2,
        f"error: {path}: 1 of {len(state)} tensors hold values that are not finite (NaN or infinity): norm.beta\n",
    )
    assert os.listdir(tmp_path) == ["a.pth"]
