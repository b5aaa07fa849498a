"""The pages of docs/ say what the code has, and become a site without a broken link."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from conftest import ROOT

from mindeit.cli.main import COMMANDS
from mindeit.config.options import keys_of
from mindeit.config.parse import GeneralOptions
from mindeit.config.whole import SECTIONS
from mindeit.models.specs import CATALOGUE

DOCS = ROOT / "docs"
TABLES = runpy.run_path(str(ROOT / "scripts" / "doc_tables.py"))
COMING_FROM = sorted((DOCS / "from").glob("*.md"))


@pytest.mark.parametrize("page", TABLES["pages"](), ids=lambda page: page.stem)
def test_tables_are_current(page):
    text = page.read_text()
    assert TABLES["with_tables"](text) == text, "python scripts/doc_tables.py writes it anew"


def test_models_are_named_with_their_files():
    page = (DOCS / "models.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == set(CATALOGUE)
    files = [file.file for row in CATALOGUE.values() for file in row.files]
    assert re.findall(r"\| \[(\S+)\]\(https://\S+\) \|$", page, re.M) == files


def test_every_setting_is_told():
    told = re.findall(r"^\| `(\w+)`", (DOCS / "options.md").read_text(), re.M)
    assert {key.name for section, kind in SECTIONS.items() for key in keys_of(section, kind)} <= set(told)


@pytest.mark.parametrize("page", COMING_FROM, ids=lambda page: page.stem)
def test_what_other_projects_options_become_is_there(page):
    """Options, keys and commands in the right-hand column are ours."""
    here = "\n".join(row.split(" | ")[-1] for row in page.read_text().splitlines() if row.startswith("| "))
    own = [getattr(importlib.import_module(f"mindeit.cli.{name}"), "Options", None) for name in COMMANDS]
    kinds = [*SECTIONS.values(), GeneralOptions, *filter(None, own)]
    known = {name for kind in kinds for key in keys_of("any", kind) for name in (key.name, *key.option.aliases)}
    named = re.findall(r"(?<!mpirun )--([a-z]\w+)", here)
    assert named
    assert set(named) <= known
    assert set(re.findall(r"`(\w+):", here)) <= known | {"extends"}
    assert set(re.findall(r"`mindeit (\w+)", here)) <= set(COMMANDS)


def test_code_is_run_or_is_no_code():
    """journeys/test_documents.py runs what is bash, console or python."""
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        kinds = set(re.findall(r"^```(.+)$", page.read_text(), re.M))
        assert kinds <= {"bash", "console", "python", "bibtex"}, page


class Requests(HTMLParser):
    """What a browser asks for when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag in ("script", "img", "iframe", "source", "video") or (
            tag == "link" and given.get("rel") in ("stylesheet", "icon", "preconnect", "preload")
        ):
            self.addresses.append(given.get("src") or given.get("href") or "")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="pip install '.[docs]' makes the site")
def test_the_site_has_no_broken_link_and_asks_no_other_host(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    reader = Requests()
    for page in tmp_path.rglob("*.html"):
        reader.feed(page.read_text())
    assert reader.addresses
    assert [address for address in reader.addresses if re.match("(https?:)?//", address)] == []
