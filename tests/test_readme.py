"""What the README says of models and files is so; journeys/test_documents.py runs its blocks."""

from __future__ import annotations

import re

from conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_the_table_of_models_is_the_catalogue():
    from mindeit.models.specs import CATALOGUE

    rows = dict(re.findall(r"\| `(\w+)`(?: \(the teacher\))? \| ([\d,]+) \|", README))
    assert set(rows) == set(CATALOGUE)
    for name, row in CATALOGUE.items():
        line = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
        top1 = row.published and row.published.top1
        assert not top1 or f"{top1:g}" in line.replace("0 /", " /")


def test_named_files_exist():
    for name in re.findall(r"(?:configs|scripts|docs|tests)/[\w./]+\.(?:yaml|py|sh|md)", README):
        assert (ROOT / name).exists(), name
