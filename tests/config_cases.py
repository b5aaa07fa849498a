"""What the tests of the configuration share: two scripts' own options, and parsing that expects a mistake."""

# ruff: noqa: UP045  (the hints are read at run time, on Python 3.9 too)
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Optional

import pytest

from mindeit.config import Config, option, parse
from mindeit.errors import UserError

ROOT = Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml"))


@dataclasses.dataclass(frozen=True)
class Script:
    """Images"""

    images: tuple[str, ...] = option((), "images or folders", positional=True)
    output: Optional[str] = option(None, "file of results")
    top_k: int = option(5, "classes shown", at_least=1)
    summary: bool = option(False, "print sizes")


@dataclasses.dataclass(frozen=True)
class NeedyScript:
    """Files"""

    model: Optional[str] = option(None, "a model, though the schema has a key of that name")
    input: str = option("", "file to read", required=True)


def configure(*argv: str, **details) -> Config:
    return parse(argv, description="A test.", **details)


def mistake(*argv: str, **details) -> str:
    with pytest.raises(UserError) as caught:
        configure(*argv, **details)
    return str(caught.value)


def mistake_in(text: str, *argv: str) -> str:
    Path("x.yaml").write_text(text, encoding="utf-8")
    return mistake("-c", "x.yaml", *argv)
