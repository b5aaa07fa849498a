"""Write the tables of the documentation that follow from the code: ``python scripts/doc_tables.py``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end of the table -->``; what stands there is replaced.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mindeit.cli.main import COMMANDS
from mindeit.config.elsewhere import MINDCV, OFFICIAL, TIMM, ForeignOption
from mindeit.config.options import Key, allowed, keys_of
from mindeit.config.show import plain
from mindeit.config.whole import SECTIONS
from mindeit.models.table import markdown_table

DOCS = Path(__file__).parents[1] / "docs"
MARKED = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end of the table -->)", re.S)


def settings() -> str:
    """Every key of the schema, a table for each section."""
    return "\n\n".join(
        f"### {_title(declaration)}\n\n{_table(keys_of(section, declaration))}"
        for section, declaration in SECTIONS.items()
    )


def commands() -> str:
    """The options that one command alone has."""
    parts = []
    for name, command in COMMANDS.items():
        own = getattr(importlib.import_module(f"mindeit.cli.{name}"), "Options", None)
        if own is not None:
            parts.append(f"### mindeit {name}\n\n{_sentence(command.help)}\n\n{_table(keys_of('script', own))}")
    return "\n\n".join(parts)


def foreign(options: Mapping[str, ForeignOption]) -> str:
    """Options of another project that are called otherwise here, or that are not here."""
    lines = ["| theirs | here |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| `{name}` | {_answer(row)} |" for name, row in options.items())])


def _answer(row: ForeignOption) -> str:
    if row.here:
        return f"`{row.here}`" if re.fullmatch(r"[-\w. ]+", row.here) else row.here
    if row.harmless is None:
        return "accepted, without effect here"
    accepted = " or ".join(f"`{value or 'none'}`" for value in row.harmless)
    return f"{row.why}{f'; accepted: {accepted}' if accepted else ''}"


def _table(keys: Iterable[Key]) -> str:
    lines = ["| option | allowed | default | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(key))} |" for key in keys)])


def _cells(key: Key) -> Iterator[str]:
    names = [key.name] if key.option.positional else [flag.lstrip("-") for flag in key.flags]
    yield ", ".join(f"`{name}`" for name in names)
    yield allowed(key)
    yield "" if key.option.positional or key.option.required else f"`{plain(key.default)}`"
    yield key.option.help


def _title(declaration: type) -> str:
    return (declaration.__doc__ or "").splitlines()[0]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


TABLES = {
    "models": markdown_table,
    "settings": settings,
    "commands": commands,
    "from deit": lambda: foreign(OFFICIAL),
    "from timm": lambda: foreign(TIMM),
    "from mindcv": lambda: foreign(MINDCV),
}


def with_tables(page: str) -> str:
    """The page with its tables as they are now."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", page)


def pages() -> list[Path]:
    return [path for path in sorted(DOCS.rglob("*.md")) if MARKED.search(path.read_text())]


if __name__ == "__main__":
    for path in pages():
        path.write_text(with_tables(path.read_text()))
