"""The notebooks: text and pair agree, what they show was committed, and each runs from start to end."""

from __future__ import annotations

import importlib.util
import re

import nbformat
import pytest
from conftest import ROOT

LOADER = importlib.util.spec_from_file_location("run_notebooks", ROOT / "scripts" / "run_notebooks.py")
run_notebooks = importlib.util.module_from_spec(LOADER)
LOADER.loader.exec_module(run_notebooks)
LARGEST = 600_000  # bytes
SHOWS = re.compile(r"print\(|plt\.show|^Picture|^display|^%%bash", re.M)  # what leaves an output
PATHS = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|Users|usr|opt|var)/")

each_notebook = pytest.mark.parametrize("name", run_notebooks.NOTEBOOKS)


def committed(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def kinds(cell: nbformat.NotebookNode) -> list:
    """A picture is a picture as PNG or as JPEG."""
    return [
        (output.output_type, sorted(kind.replace("jpeg", "png") for kind in output.get("data", ())))
        for output in cell.get("outputs", ())
    ]


def texts(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "\n".join(output.get("text") or "\n".join(map(str, output.data.values())) for output in outputs)


def test_each_text_has_its_notebook_and_each_notebook_its_text():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(run_notebooks.NOTEBOOKS)
    assert len(run_notebooks.NOTEBOOKS) == 4


@each_notebook
def test_the_pair_agrees(name):
    """After a change: python scripts/run_notebooks.py NAME"""
    text = run_notebooks.read(run_notebooks.NOTEBOOKS[name])
    assert [(cell.cell_type, cell.source) for cell in committed(name).cells] == [
        (cell.cell_type, cell.source) for cell in text.cells
    ]


@each_notebook
def test_what_cells_show_is_committed(name):
    notebook = committed(name)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.execution_count, cell.source
            assert bool(SHOWS.search(cell.source)) == bool(cell.outputs), cell.source
            assert not any(output.output_type == "error" for output in cell.outputs)


@each_notebook
def test_outputs_are_clean_and_small(name):
    found = texts(committed(name))
    assert PATHS.search(found) is None
    assert not re.search("warning|Traceback|it/s", found, re.I)
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < LARGEST


@pytest.mark.slow  # of the workflow (.github) a job of its own
@each_notebook
def test_it_runs_from_start_to_end(name):
    """And shows as much as what was committed."""
    executed = run_notebooks.execute(run_notebooks.NOTEBOOKS[name])
    assert [kinds(cell) for cell in executed.cells] == [kinds(cell) for cell in committed(name).cells]
