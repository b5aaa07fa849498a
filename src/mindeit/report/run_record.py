"""What a run left in its folder, read back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindeit.errors import UserError
from mindeit.training.run_folder import CONFIG, CONFIG_MARK, HISTORY

_ENTRY = re.compile(r"(?P<default># )?(?P<key>[a-z_0-9]+): (?P<value>.*?) +# (?P<origin>.+)")


@dataclass(frozen=True)
class Setting:
    """A key of the configuration; ``origin``: "default", a file, "command line", or what it follows from."""

    key: str
    value: str
    origin: str


@dataclass(frozen=True)
class RunRecord:
    """``made``: how the run was started, by name (command, versions, device, ...); ``history``: a record an epoch."""

    folder: Path
    made: Mapping[str, str]
    settings: tuple[Setting, ...]
    history: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        lines = _text(folder / CONFIG, folder).splitlines()
        if not lines or lines[0] != CONFIG_MARK:
            raise UserError(f"{folder / CONFIG}: no run wrote this file")
        head = lines[1 : lines.index("")] if "" in lines else lines[1:]
        made = dict(line.removeprefix("# ").split(": ", 1) for line in head if ": " in line)
        found = map(_ENTRY.fullmatch, lines[len(head) + 1 :])
        settings = tuple(Setting(match["key"], match["value"], match["origin"]) for match in found if match)
        records = _text(folder / HISTORY, folder).splitlines() if (folder / HISTORY).exists() else []
        return cls(folder, made, settings, tuple(map(json.loads, records)))

    @property
    def seconds(self) -> float:
        return sum(record["seconds"] for record in self.history)

    @property
    def chosen(self) -> list[Setting]:
        return [setting for setting in self.settings if setting.origin != "default"]

    def points(self, key: str) -> list[tuple[float, float]]:
        """(epoch, value) of a figure, where it was measured."""
        return [(record["epoch"], record[key]) for record in self.history if record.get(key) is not None]


def _text(path: Path, folder: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        raise UserError(f"{folder} holds no run: {path.name} is missing") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
