"""Every command the README shows to copy works as printed, on generated weights and a tiny stand-in for ImageNet."""
from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT
from PIL import Image

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line and line[0] in ("python", "mpirun")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with random weights in the official format, a picture, and a thousand classes, ten with a picture."""
    from mindeit.checkpoint import card_for
    from mindeit.convert.load import to_official
    from mindeit.convert.torch_files import write_official
    from mindeit.models.registry import build, spec

    folder, name = tmp_path_factory.mktemp("readme"), "deit_tiny_patch16_224"
    state = {p.name: p.asnumpy() for p in build(name).get_parameters()}
    write_official(folder / spec(name).published.file, to_official(state, card_for(spec(name), 1000)))
    for number in range(1000):
        place = folder / "imagenet" / "train" / f"n{number:08d}"
        place.mkdir(parents=True)
        Image.new("RGB", (40, 50), (number // 4, 90, 120)).save(place / "one.jpg")
    for number in range(0, 1000, 100):
        place = folder / "imagenet" / "val" / f"n{number:08d}"
        place.mkdir(parents=True)
        Image.new("RGB", (60, 50), (number // 4, 90, 120)).save(place / "one.jpg")
    for part, number in ((part, number) for part in ("train", "val") for number in range(8)):
        place = folder / "flowers" / part / ("rose" if number % 2 else "tulip")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 40), (200, 30 * number, 90)).save(place / f"{number}.jpg")
    Image.new("RGB", (300, 200), (20, 90, 120)).save(folder / "bird.jpg")
    (folder / "configs").symlink_to(ROOT / "configs")
    for script in ROOT.glob("*.py"):
        (folder / script.name).symlink_to(script)
    return folder


def test_the_readme_shows_every_door():
    shown = {word for command in commands() for word in command if word.endswith(".py")}
    assert shown == {"convert_pt2ms.py", "train.py", "validate.py", "predict.py", "export.py"}


def test_the_commands_work_in_the_order_they_stand(desk, monkeypatch):
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    monkeypatch.setenv("PATH", str(ROOT / ".venv" / "bin"), prepend=":")
    for command in commands():
        words = [word.replace("/data/", f"{desk}/") for word in command]
        if "train.py" in words:  # the same, but over in a minute: the stand-ins hold too little for a whole batch
            words += ["--epoch_size", "2" if "--resume" in words else "1"]
            words += [] if "digits" in " ".join(words) else ["--batch_size", "4", "--image_resize", "32"]
        words += ["--image_size", "32"] if "export.py" in words else []
        words = [sys.executable if word == "python" else word for word in words]
        done = subprocess.run(words, cwd=desk, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"
        assert (done.stdout + done.stderr).strip(), words
    for name in ("deit_tiny.ckpt", "results.json", "predictions.json", "maps/bird.png", "start.ckpt", "back.pth",
                 "deit_tiny.onnx", "deit_tiny.mindir", "deit_tiny.mindir.json",
                 "outputs/digits_student/curves.png", "outputs/flowers/last.ckpt"):
        assert (desk / name).stat().st_size > 100
    for code in blocks("python"):
        done = subprocess.run([sys.executable, "-c", code], cwd=desk, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "5,717,416" in done.stdout


def test_the_table_of_models_is_the_catalogue():
    from mindeit.models.catalogue import CATALOGUE

    rows = dict(re.findall(r"\| `(\w+)`(?: \(the teacher\))? \| ([\d,]+) \|", README))
    assert set(rows) == set(CATALOGUE)
    for name, row in CATALOGUE.items():
        line = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
        top1 = row.published and row.published.top1
        assert not top1 or f"{top1:g}" in line.replace("0 /", " /")


def test_named_files_exist():
    for name in re.findall(r"(?:configs|scripts|docs|tests)/[\w./]+\.(?:yaml|py|sh|md)", README):
        assert (ROOT / name).exists(), name
