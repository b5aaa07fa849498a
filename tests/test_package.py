"""The package as pip and an interactive session see it: dependencies, the console command, names, shipped files."""

from __future__ import annotations

import pydoc
import re
import subprocess
import sys
import time

import pytest
from conftest import ROOT

import mindeit
from mindeit.cli import main as console
from mindeit.config import parse
from mindeit.config.sources import SHIPPED
from mindeit.errors import UserError
from mindeit.models.specs import CATALOGUE

HEAVY = {"mindspore", "torch", "mindcv", "onnx", "onnxruntime"}
CHECK_LOADED = f"\nprint(sorted({HEAVY} & set(sys.modules)))"


def run(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()


def called(capsys, *words: str) -> tuple[int, str, str]:
    """Exit code and output of ``mindeit WORDS``."""
    with pytest.raises(SystemExit) as ended:
        console.main(words)
    return (ended.value.code, *capsys.readouterr())


def test_requirements_are_what_the_package_asks_for():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert extras.pop("all") == [f"mindeit[{','.join(name for name in extras if name not in ('dev', 'docs'))}]"]
    asked = {line for lines in (project["dependencies"], *extras.values()) for line in lines}
    lines = [line.partition("#")[0].strip().replace('"', "'") for line in (ROOT / "requirements.txt").open()]
    assert [line for line in lines if line.startswith("-")] == ["-e ."]
    assert {line for line in lines if line and line != "-e ."} == asked


def test_a_base_install_is_small():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    assert not names & {"mindspore", "torch", "mindcv", "onnx", "matplotlib", "scikit-learn"}


def test_the_version_stands_in_one_place():
    version = re.escape(mindeit.__version__)
    assert not re.search(rf'version = "{version}"', (ROOT / "pyproject.toml").read_text())
    found = [path.name for path in SHIPPED.parent.rglob("*.py") if re.search(rf'"{version}"', path.read_text())]
    assert found == ["version.py"]


def test_import_is_quick_and_loads_nothing_heavy():
    def seconds(code: str) -> float:
        begun = time.perf_counter()
        assert run(code) == ["[]"]
        return time.perf_counter() - begun

    least = min(seconds("import sys, mindeit" + CHECK_LOADED) for _ in range(3))
    python = min(seconds("import sys" + CHECK_LOADED) for _ in range(3))
    assert least - python < 0.3


def test_names_complete_and_explain_themselves():
    assert dir(mindeit) == sorted(mindeit.__all__) == sorted(mindeit._PUBLIC)
    block = re.search(r"if TYPE_CHECKING:.*?\n\n", (SHIPPED.parent / "__init__.py").read_text(), re.S)[0]
    imported = re.findall(r"from (\S+) import (.*)", block)
    assert {name: module for module, names in imported for name in names.split(", ")} == mindeit._PUBLIC
    for name in mindeit.__all__:
        assert getattr(mindeit, name).__doc__, name


def test_help_shows_arguments_and_an_example():
    text = pydoc.render_doc(mindeit.create_model, renderer=pydoc.plaintext)
    assert all(word in text for word in ("num_classes", "image_size", "checkpoint", "pretrained", "drop_path_rate"))
    assert 'model = mindeit.create_model("deit_tiny_patch16_224", checkpoint="deit_tiny.ckpt")' in text


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("models",), ("train", "--help"), ("env",)])
def test_it_answers_without_mindspore(words):
    code = f"""
import sys
from mindeit.cli.main import main
try:
    main({words!r})
except SystemExit as stopped:
    assert not stopped.code
"""
    lines = run(code + CHECK_LOADED)
    assert len(lines) > 1
    assert lines[-1] == "[]"


def test_help_names_every_command(capsys):
    code, out, _ = called(capsys)
    assert code == 0
    assert re.findall(r"^  (\w+) ", out, re.M) == list(console.COMMANDS)
    assert called(capsys, "--version")[1] == f"mindeit {mindeit.__version__}\n"
    for name in console.COMMANDS:
        code, out, _ = called(capsys, name, "--help")
        assert code == 0
        assert out.startswith(f"usage: mindeit {name} [--key value ...]")
        assert "python " not in "".join(out.splitlines()[:4])


def test_an_unknown_command_is_one_line(capsys):
    code, out, err = called(capsys, "trian")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: unknown command 'trian' (nearest: 'train')")


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("train", "-c", "deit_digits_cpu"), "train"),
        (("validate", "--ckpt_path", "{file}", "--dataset", "digits"), "train"),
        (("export", "--ckpt_path", "{file}", "--format", "ONNX"), "export"),
        (("convert", "--input", "{file}", "--output", "x.ckpt"), "convert"),
    ],
)
def test_what_a_command_lacks_is_told_in_a_line(words, extra, tmp_path):
    (tmp_path / "some.ckpt").write_bytes(b"weights")
    words = [word.format(file=tmp_path / "some.ckpt") for word in words]
    code = f"import sys\nsys.modules['mindspore'] = None\nfrom mindeit.cli.main import main\nmain({words!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    line = f"error: mindeit {words[0]} needs mindspore, which is not installed: pip install 'mindeit[{extra}]'"
    assert done.stderr.splitlines()[-1] == line
    assert "Traceback" not in done.stderr


def test_models_prints_the_rows_that_match(capsys):
    names = {line.split()[0] for line in called(capsys, "models", "deit3*", "cait_XXS24*")[1].splitlines()[1:]}
    wanted = [row.name for row in CATALOGUE.values() if row.family == "deit3" or row.name.startswith("cait_XXS24")]
    assert names == set(wanted)
    assert len(called(capsys, "models")[1].splitlines()) > len(CATALOGUE)
    assert called(capsys, "models", "diet*") == (2, "", "error: no model or family is called 'diet*'\n")


def test_configurations_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_path = parse(["-c", str(ROOT / "configs" / "deit_b_distilled_gpu.yaml")], description="").flat()
    for name in ("deit_b_distilled_gpu", "deit_b_distilled_gpu.yaml"):
        assert parse(["-c", name], description="").flat() == by_path
    (tmp_path / "deit_b_gpu.yaml").write_text("model: deit_tiny_patch16_224\n")
    assert parse(["-c", "deit_b_gpu.yaml"], description="").model.model == "deit_tiny_patch16_224"
    with pytest.raises(UserError, match=r"^deit_b_gpuu: no such file \(nearest: 'deit_b_gpu.yaml'\)$"):
        parse(["-c", "deit_b_gpuu"], description="")


def test_the_package_ships_the_configurations_of_the_repository():
    assert SHIPPED.resolve() == ROOT / "configs"
