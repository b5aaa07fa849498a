"""Write the table of all models into docs/models.md, as the specs have it: ``python scripts/model_table.py``."""

from __future__ import annotations

from pathlib import Path

from mindeit.models.table import markdown_table

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- table: python scripts/model_table.py -->", "<!-- end of the table -->"


def with_table(page: str) -> str:
    """The page with what stands between its two marks replaced."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{markdown_table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
