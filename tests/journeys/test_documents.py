"""Every block of README and docs, in the order they stand, on small models and a tiny stand-in for /data."""

from __future__ import annotations

import functools
import importlib
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from standins import fill_cache, small_models, write_official
from training_runs import few_digits, without_pictures

from mindeit.errors import UserError
from mindeit.export.web_page import runtime_package
from mindeit.models.registry import spec

__all__ = ["few_digits", "small_models"]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))]
CLASSES = [f"n{number:08d}" for number in range(5)]  # a step of four images is an epoch
# They install, run for minutes, or serve until they are stopped; the server has tests of its own.
NOT_HERE = ("bash", "pip", "curl", "source", "docker")
QUICK = ("--epoch_size", "1", "--device_target", "CPU", "--num_parallel_workers", "1", "--mode", "pynative")


def blocks(text: str) -> list[tuple[str, str]]:
    return re.findall(r"```(bash|console|python)\n(.*?)```", text, re.S)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with weights in the official format, an image, and what README calls /data."""
    folder, name = tmp_path_factory.mktemp("readme"), "deit_tiny_patch16_224"
    write_official(folder / spec(name).published.file, name, classes=len(CLASSES))
    for part in ("train", "val"):
        for number, kind in enumerate(CLASSES):
            (folder / "imagenet" / part / kind).mkdir(parents=True)
            Image.new("RGB", (60, 50), (25 * number, 90, 120)).save(folder / "imagenet" / part / kind / "one.jpg")
        for number in range(8):
            place = folder / "flowers" / part / ("rose" if number % 2 else "tulip")
            place.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (50, 40), (200, 30 * number, 90)).save(place / f"{number}.jpg")
    Image.new("RGB", (300, 200), (20, 90, 120)).save(folder / "bird.jpg")
    (folder / "configs").symlink_to(ROOT / "configs")
    fill_cache(folder / "home", lambda row: len(CLASSES))
    if (package := browser_runtime()) is not None:
        (folder / "home" / package.name).symlink_to(package)
    return folder


@functools.cache
def browser_runtime() -> Path | None:
    """None: npm cannot be reached, and the command that writes a page is left out."""
    try:
        return runtime_package()
    except UserError:
        return None


def in_this_process(script: str, words: list[str], monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", [script, *words])
    module = "mindeit.cli.main" if script == "mindeit" else script.removesuffix(".py")
    try:
        return importlib.import_module(module).main() or 0
    except SystemExit as ended:
        return ended.code or 0


def walk(line: str, desk: Path, monkeypatch, capfd) -> None:
    """A command as it stands, over in seconds; of several processes it takes one, for ranks have tests of their own."""
    words = shlex.split(line.replace("/data/", f"{desk}/"), comments=True)
    if not words or words[0] in NOT_HERE or "serve" in words:
        return
    if "--web" in words and browser_runtime() is None:
        return
    start = words.index("mindeit") if "mindeit" in words else words.index("python") + 1
    script, words = words[start], words[start + 1 :]
    if {"train", "finetune"} & {script.removesuffix(".py"), *words[:1]}:
        words += [*QUICK, "--amp_level", "O0", "--batch_size", "180" if "digits" in line else "4"]
        words += ["--epoch_size", "2"] if "--resume" in words else []
    if "--distributed" in words:
        words += ["--distributed", "False", "--device_target", "CPU", "--amp_level", "O0", "--batch_size", "4"]
        words += ["--mode", "pynative"]
    words += ["--mode", "pynative"] * (script == "validate.py" or words[:1] == ["validate"])
    words += ["--tolerance", "100"] * ("int8" in words)  # of five images under random weights
    capfd.readouterr()
    with monkeypatch.context() as patch:
        if "digits" not in line:
            without_pictures(patch)
        code = in_this_process(script, words, patch)
    out, err = capfd.readouterr()
    assert code == 0, f"{line}\n{err}"
    assert (out + err).strip(), line


def run_indented(document: str, afterwards: str, **others: object) -> None:
    """The Python lines of a page of docs; ``others`` are words to replace, and names that the lines use."""
    lines = re.findall(r"^ {4}(.*)$|^(?=$)", (ROOT / "docs" / document).read_text(), re.M)
    code = "\n".join(line for line in lines if not re.match(r"(backend|max_batch_size|dynamic_batching)", line))
    for word, other in others.items():
        code = code.replace(word, other) if isinstance(other, str) else code
    exec(compile(code + afterwards, document, "exec"), dict(others))


def test_the_readme_shows_every_door():
    shown = set(re.findall(r"python (\w+\.py)", "".join(text for _, text in blocks(README))))
    assert shown == {"convert_pt2ms.py", "train.py", "validate.py", "predict.py", "export.py"}


def test_every_block_works_in_its_place(desk, monkeypatch, capfd):
    import mindspore as ms

    monkeypatch.chdir(desk)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("MINDEIT_HOME", str(desk / "home"))
    try:
        for language, text in (block for document in DOCUMENTS for block in blocks(document)):
            if language == "python":
                capfd.readouterr()
                exec(compile(text, "block", "exec"), {})
                assert capfd.readouterr().out.strip(), text
                continue
            for line in text.replace("\\\n", " ").splitlines():
                walk(line, desk, monkeypatch, capfd)
        for name in (
            "deit_tiny.ckpt",
            "results.json",
            "predictions.csv",
            "predictions.json",
            "maps/bird_attention.png",
            "start.ckpt",
            "back.pth",
            "deit_tiny.onnx",
            "deit_tiny.mindir",
            "deit_tiny.mindir.json",
            "outputs/flowers/last.ckpt",
            "own.html",
            "data.json",
            "features.npz",
            "flowers_timm/README.md",
            "outputs/digits_student/curves.png",
            "outputs/deit_b_384/last.ckpt",
        ):
            assert (desk / name).stat().st_size > 100, name
        run_indented(
            "deploy.md",
            "\ngraph(ms.Tensor(images)); session.run(None, {'images': images})",
            images=np.zeros((1, 3, 224, 224), np.float32),
        )
        run_indented("python.md", "\nassert predictor.predict('bird.jpg')")
        run_indented("features.md", "\nassert len(table) == 16", **{"/data/": f"{desk}/"})
        run_indented(
            "data.md",
            "\nassert images.shape == (4, 3, 224, 224)",
            **{"/data/": f"{desk}/", "range(300)": "range(1)", "256": "4", "Processes(16)": "Processes(1)"},
        )
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)
