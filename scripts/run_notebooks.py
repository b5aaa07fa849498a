"""Execute the notebooks and write what they show anew: python scripts/run_notebooks.py [NAME ...]

The text is notebooks/NAME.py (jupytext's percent format); NAME.ipynb beside it is made of it, with its outputs.
"""

from __future__ import annotations

import base64
import io
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbformat import NotebookNode, write
from PIL import Image

from mindeit.errors import UserError, nearest, run_script

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.py"))}
WAITING = re.compile(r"^(?:(?:still )?compil.*|.* left)\n?", re.M)  # that a graph is compiled; how far an epoch is
PNG, JPEG, HTML = "image/png", "image/jpeg", "text/html"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read(path: Path) -> NotebookNode:
    """The text as a notebook without outputs; what changes from run to run, such as the cells' names, is left out."""
    notebook = jupytext.read(path)
    notebook.metadata = {**METADATA, "jupytext": {"formats": "ipynb,py:percent"}}
    for number, cell in enumerate(notebook.cells, 1):
        cell.id, cell.metadata = f"cell-{number}", {}
    return notebook


def execute(path: Path) -> NotebookNode:
    """In a folder of its own, by this Python and this checkout; an error in a cell is raised."""
    notebook = read(path)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=1200, record_timing=False, coalesce_streams=True, resources={"metadata": {"path": folder}}
        )
        client.execute(env=_environment())
    host = f", {platform.node()}&"  # in a page that stands in a frame, whose "<" is "&lt;"
    tidy(notebook, {f"{ROOT}/": "", folder: ".", host: "&"})
    return notebook


def tidy(notebook: NotebookNode, places: dict[str, str]) -> None:
    """Small outputs, that change as little as can be: no lines for those who wait, photographs as JPEG, and in place of
    this machine's folders and name what ``places`` calls them."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.text = _renamed(WAITING.sub("", output.text).rstrip() + "\n", places)
                elif PNG in output.get("data", ()):
                    _smaller(output.data)
                elif HTML in output.get("data", ()):
                    output.data[HTML] = _renamed(output.data[HTML], places)
            cell.outputs = [output for output in cell.outputs if output.get("text", "-").strip()]


def _renamed(text: str, places: dict[str, str]) -> str:
    for folder, name in places.items():
        text = text.replace(folder, name)
    return text


def _smaller(data: NotebookNode) -> None:
    """As JPEG where that is less than half as long: photographs and maps, not charts."""
    target = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(data[PNG]))).convert("RGB").save(target, "JPEG", quality=90, subsampling=0)
    photograph = base64.b64encode(target.getvalue()).decode()
    if 2 * len(photograph) < len(data[PNG]):
        del data[PNG]
        data[JPEG] = photograph


def _environment() -> dict[str, str]:
    paths = (str(ROOT / "src"), os.environ.get("PYTHONPATH", ""))
    commands = (str(Path(sys.executable).parent), os.environ["PATH"])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PATH": os.pathsep.join(commands)}


@run_script
def main(argv: Sequence[str]) -> None:
    for name in argv or NOTEBOOKS:
        if name not in NOTEBOOKS:
            raise UserError(f"unknown notebook '{name}'{nearest(name, NOTEBOOKS)}; allowed: {', '.join(NOTEBOOKS)}")
    for name in argv or NOTEBOOKS:
        begun = time.monotonic()
        target = NOTEBOOKS[name].with_suffix(".ipynb")
        write(execute(NOTEBOOKS[name]), target)
        print(f"{name}: {time.monotonic() - begun:.0f} s, {target.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
