"""The models and their official files: sizes, published accuracies, addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mindeit.config import option, parse
from mindeit.errors import run_script
from mindeit.models.table import catalog_table


@dataclass(frozen=True)
class Options:
    """Models"""

    patterns: tuple[str, ...] = option((), "names or families, such as 'cait*' or deit3", positional=True)


@run_script
def main(argv: Sequence[str]) -> None:
    print(catalog_table(*parse(argv, description=__doc__, script=Options, sections=()).script.patterns))
