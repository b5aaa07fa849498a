"""An exported ONNX file where neither MindSpore nor PyTorch is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from exported_files import export, write_checkpoint
from PIL import Image

import mindeit

PREDICT = """
import sys
import mindeit
predictor = mindeit.Predictor(sys.argv[1])
first, second = predictor.predict([sys.argv[2], open(sys.argv[2], "rb")], top_k=1)
assert first == second, (first, second)
print(first[0].label, first[0].name)
"""
ONLY = """
import sys
class Missing:
    known = {"mindeit", "numpy", "PIL", "onnxruntime", "yaml", "filelock"}
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in self.known and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, Missing())
"""


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """An ONNX file of a thousand classes, which carries ImageNet's names."""
    folder = tmp_path_factory.mktemp("small")
    checkpoint = write_checkpoint(folder, "resmlp_mini_patch8_32", num_classes=1000, class_names=None)
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert export(monkeypatch, checkpoint, folder / "model.onnx", "--batch", "1") == 0
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8)).save(path)
    return path


def predicted(python: Path | str, code: str, *arguments: Path, **options) -> str:
    words = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


COMMAND = """
from mindeit.cli.main import main
main(["predict", "--ckpt_path", sys.argv[1], sys.argv[2], "--top_k", "1"])
"""


def wanted(file: Path, image: Path) -> str:
    best = mindeit.Predictor(file).predict(image)[0]
    assert not best.name.startswith("class ")
    return f"{best.label} {best.name}"


def test_it_predicts_with_class_names_from_the_file_alone(thousand, image):
    assert predicted(sys.executable, ONLY + PREDICT, thousand, image, cwd=ROOT) == wanted(thousand, image)


def test_the_command_does_too(thousand, image):
    best = mindeit.Predictor(thousand).predict(image)[0]
    lines = predicted(sys.executable, ONLY + COMMAND, thousand, image, cwd=ROOT).splitlines()
    assert lines == [str(image), f"  {best.score:7.2%}  {best.name} ({best.label})"]


@pytest.mark.slow  # downloads the packages of a base install
def test_the_wheel_predicts_in_an_environment_of_its_own(thousand, image, tmp_path):
    venv.create(tmp_path / "small", with_pip=True)
    python = tmp_path / "small" / "bin" / "python"
    environment = {"PATH": str(python.parent), "HOME": str(tmp_path)}
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = tmp_path / "source"  # building leaves files behind
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "*.egg-info", "outputs", "build", "tests"))
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(source)], check=True)
    wheel = next(tmp_path.glob("mindeit-*.whl"))
    subprocess.run([*pip, "install", "--only-binary", ":all:", str(wheel)], check=True)
    assert predicted(python, PREDICT, thousand, image, cwd=tmp_path, env=environment) == wanted(thousand, image)
    command = [str(python.with_name("mindeit")), "predict", "--ckpt_path", str(thousand), str(image)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert wanted(thousand, image).split(" ", 1)[1] in done.stdout
    installed = {path.name for path in (tmp_path / "small").glob("lib/*/site-packages/*")}
    assert "onnxruntime" in installed
    assert not installed & {"mindspore", "torch"}
