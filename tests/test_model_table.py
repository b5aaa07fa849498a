"""docs/models.md shows the models as they are."""

from __future__ import annotations

import re
import runpy

from conftest import ROOT

from mindeit.models.specs import CATALOGUE


def test_the_page_is_current():
    script = runpy.run_path(str(ROOT / "scripts" / "model_table.py"))
    page = script["PAGE"].read_text()
    assert script["with_table"](page) == page, "python scripts/model_table.py writes it anew"


def test_the_page_names_every_model_and_file():
    page = (ROOT / "docs" / "models.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == set(CATALOGUE)
    files = [file.file for row in CATALOGUE.values() for file in row.files]
    assert re.findall(r"\| \[(\S+)\]\(https://\S+\) \|$", page, re.M) == files
