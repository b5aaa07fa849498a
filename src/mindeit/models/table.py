"""All models and their official files as a table: for the screen, and as docs/models.md has it."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch

from mindeit.errors import UserError, nearest
from mindeit.models.spec import ModelSpec, Published
from mindeit.models.specs import CATALOGUE

_TITLES = ("model", "images", "params(M)", "GFLOPs", "trained on", "top-1", "top-5")
_COLUMNS = "{:<33} {:>6} {:>9} {:>7}  {:<12} {:>5} {:>5}  {}"


def catalog_table(*patterns: str) -> str:
    """One line per model and official file: parameters (M), GFLOPs, and what the authors published.

    ``patterns``: shell patterns of names or families; without one all models.
    """
    for pattern in patterns:
        if not any(_matches(row, pattern) for row in CATALOGUE.values()):
            raise UserError(f"no model or family is called '{pattern}'{nearest(pattern.strip('*'), CATALOGUE)}")
    lines = [_COLUMNS.format(*_TITLES, "URL")]
    for row, file in _files():
        if not patterns or any(_matches(row, pattern) for pattern in patterns):
            lines.append(_COLUMNS.format(*_cells(row, file), file.url if file else "-"))
    return "\n".join(lines)


def _matches(row: ModelSpec, pattern: str) -> bool:
    return fnmatch(row.name, pattern) or fnmatch(row.family, pattern)


def markdown_table() -> str:
    """The same for Markdown; a file is named, and linked to its address."""
    lines = [(*_TITLES, "file"), ("---", *["---:"] * 3, "---", *["---:"] * 2, "---")]
    for row, file in _files():
        name, *figures = _cells(row, file)
        lines.append((f"`{name}`", *figures, f"[{file.file}]({file.url})" if file else "-"))
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def _files() -> Iterator[tuple[ModelSpec, Published | None]]:
    for row in CATALOGUE.values():
        for file in row.files or (None,):
            yield row, file


def _cells(row: ModelSpec, file: Published | None) -> tuple:
    """What stands under `_TITLES`."""
    if file is None:
        return (row.name, row.image_size, *(row.counted or "--"), *"---")
    figures = _figure(file.top1, 2), _figure(file.top5, 1)
    return (row.name, file.image_size or row.image_size, file.params_m, file.gflops, file.trained_on, *figures)


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
