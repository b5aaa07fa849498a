"""What mkdocs.yml cannot say: README and CONTRIBUTING, which stand outside docs/, are pages too."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=from_docs((ROOT / name).read_text())))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A link to a page reads as the page's title; on the file's own page it reads as the file's name."""

    def named(found: re.Match) -> str:
        path = ROOT / "docs" / Path(page.file.src_uri).parent / found[1]
        title = re.match("# (.+)", path.read_text()) if path.exists() else None
        return f"[{title[1]}]({found[1]})" if title else found[0]

    return re.sub(r"\[(?:docs/)?[\w./]+\.md\]\(([\w./]+\.md)\)", named, markdown)


def from_docs(text: str) -> str:
    """Links as they are from within docs/; files outside of it are named without a link."""

    def link(found: re.Match) -> str:
        label, target = found[1], found[2]
        if target in PAGES or target.startswith("docs/"):
            return f"[{label}]({PAGES.get(target, target.removeprefix('docs/'))})"
        return label

    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:)([\w./]+)\)", link, text).replace("](docs/", "](")
