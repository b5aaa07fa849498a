"""The rules of the architecture, read from the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache

import pytest
from conftest import ROOT

PACKAGE = ROOT / "src" / "mindeit"
# From the commands inwards: a package may import packages of later rows only (and itself).
ORDER = [
    {"cli"},
    {"factory"},
    {"config", "report"},
    {"training", "predict", "convert", "mindcv"},
    {"export", "torch_reference", "objectives"},
    {"weights"},
    {"models", "data", "optim"},
    {"layers"},
    {"kernels"},
    {"runtime"},
    {"files", "typed", "comparison"},
    {"errors", "version"},
]
LEVEL = {package: level for level, packages in enumerate(ORDER) for package in packages}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
LARGEST = 300  # lines of a file
LAZY_IMPORTS = 36  # a command has one, to read its arguments before MindSpore loads


@cache
def imports_of(module: str) -> frozenset[str]:
    """Modules of this package that ``module`` imports anywhere, but for the annotations alone."""
    tree = ast.parse(MODULES[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mindeit":
            inside = node.module.partition(".")[2]
            names = [f"{inside}.{alias.name}".lstrip(".") for alias in node.names]
            found |= {name if name in MODULES else inside for name in names} - {""}
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("mindeit.")}
    return frozenset(found - {module})


def package_of(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__init__"])
def test_imports_point_inwards(module):
    own = package_of(module)
    for other in {package_of(name) for name in imports_of(module)} - {own}:
        assert LEVEL[other] > LEVEL[own], f"{own} imports {other}"


def test_no_files_import_each_other_in_a_circle():
    done, circles = set(), []

    def visit(module: str, way: tuple[str, ...]) -> None:
        if module in way:
            circles.append(way[way.index(module) :])
        elif module not in done:
            for other in sorted(imports_of(module)):
                visit(other, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())
    assert circles == []


def test_only_commands_and_the_factory_see_the_configuration():
    users = {package_of(module) for module in MODULES if "config" in map(package_of, imports_of(module))} - {"config"}
    assert users == {"cli", "factory"}


def test_only_runtime_and_kernels_ask_for_the_device():
    words = ('"Ascend"', '"GPU"', "device_target")
    asking = {package_of(name) for name, path in MODULES.items() if any(word in path.read_text() for word in words)}
    assert asking <= {"cli", "runtime", "kernels", "config", "factory"}


def test_files_stay_short():
    assert {name for name, path in MODULES.items() if len(path.read_text().splitlines()) > LARGEST} == set()


def test_imports_stand_at_the_top_of_a_file_with_few_exceptions():
    lazy = [
        f"{name}: {ast.unparse(node)}"
        for name, path in MODULES.items()
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    assert len(set(lazy)) <= LAZY_IMPORTS, "\n".join(sorted(set(lazy)))


@pytest.mark.parametrize("script", ["train.py", "validate.py", "predict.py", "export.py", "convert_pt2ms.py"])
def test_help_loads_neither_mindspore_nor_torch(script):
    code = f"""
import runpy, sys
sys.argv = [{script!r}, "--help"]
try:
    runpy.run_path({str(ROOT / script)!r}, run_name="__main__")
except SystemExit as stopped:
    assert not stopped.code
print(sorted({{"mindspore", "torch", "mindcv", "onnx", "onnxruntime"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert len(done.stdout.splitlines()) > 10


def test_every_option_of_the_schema_has_help():
    from mindeit.config.options import keys_of
    from mindeit.config.whole import SECTIONS

    keys = [key for section, kind in SECTIONS.items() for key in keys_of(section, kind)]
    assert all(key.option.help for key in keys)
    assert len(keys) > 60
