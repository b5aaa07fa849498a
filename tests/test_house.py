"""The rules of the house, read from the code itself."""
from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "src" / "mindeit"
# From the doors inwards: a room may import rooms of later rows only (and itself).
ORDER = [
    {"build"},
    {"config"},
    {"deploy", "training", "mindcv"},
    {"objectives"},
    {"convert"},
    {"checkpoint"},
    {"card"},
    {"models", "data", "optim"},
    {"losses", "layers"},
    {"kernels"},
    {"runtime"},
    {"ckpt"},
    {"files", "typed", "integrity"},
    {"errors"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mindeit":
            parts = node.module.split(".")
            rooms |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("mindeit.")}
    return rooms


@pytest.mark.parametrize("path", [p for p in MODULES if p.name != "__init__.py" or p.parent != PACKAGE], ids=str)
def test_imports_point_inwards(path):
    own = room_of(path)
    for other in imported_rooms(path) - {own}:
        assert LEVEL[other] > LEVEL[own], f"{own} imports {other}"


def test_only_doors_and_build_see_the_configuration():
    users = {room_of(path) for path in MODULES if "config" in imported_rooms(path)} - {"config"}
    assert users == {"build"}


def test_only_runtime_and_kernels_ask_for_the_device():
    words = ('"Ascend"', '"GPU"', "device_target")
    asking = {room_of(path) for path in MODULES if any(word in path.read_text() for word in words)}
    assert asking <= {"runtime", "kernels", "config", "build"}


@pytest.mark.parametrize("door", ["train.py", "validate.py", "predict.py", "export.py", "convert_pt2ms.py"])
def test_help_loads_neither_mindspore_nor_torch(door):
    code = f"""
import runpy, sys
sys.argv = [{door!r}, "--help"]
try:
    runpy.run_path({str(ROOT / door)!r}, run_name="__main__")
except SystemExit as stopped:
    assert not stopped.code
print(sorted({{"mindspore", "torch", "mindcv", "onnx", "onnxruntime"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert len(done.stdout.splitlines()) > 10


def test_every_option_of_the_schema_has_help():
    from mindeit.config.options import keys_of
    from mindeit.config.schema import SECTIONS

    keys = [key for section, kind in SECTIONS.items() for key in keys_of(section, kind)]
    assert all(key.option.help for key in keys)
    assert len(keys) > 60
