"""What README and docs name is there; journeys/test_documents.py runs its blocks."""

from __future__ import annotations

import re

import yaml
from conftest import ROOT

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
TEXT = "\n".join(page.read_text() for page in PAGES)


def test_named_files_exist():
    for name in re.findall(r"(?:configs|scripts|docs|tests|src)/[\w./]+\.(?:yaml|py|sh|md|png)", TEXT):
        assert (ROOT / name).exists(), name


def test_links_lead_to_files():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([\w./]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_it_takes_two_minutes_to_read():
    assert len(README.splitlines()) < 220


def test_it_is_cited_as_citation_cff_says():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["title"] in README
    assert cited["references"][0]["authors"][0]["family-names"] in README.split("```bibtex")[1]
