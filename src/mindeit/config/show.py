"""The configuration as text: ``--help``, ``--print_config`` and ``config.yaml``."""

from __future__ import annotations

import itertools
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from mindeit.config.options import Key, allowed, keys_of
from mindeit.config.sources import DEFAULT
from mindeit.config.whole import SECTIONS, Config


def help_text(program: str, description: str, titles: Mapping[str, str], keys: Iterable[Key]) -> str:
    """Usage, description, then each section's options with what they allow and their defaults."""
    keys = list(keys)
    words = [key for key in keys if key.option.positional]
    usage = " ".join([f"usage: {program} [--key value ...]", *(f"{key.name} ..." for key in words)])
    lines = [usage, "", description]
    for section, group in itertools.groupby(keys, lambda key: key.section):
        lines += ["", titles[section]]
        for key in group:
            lines += _entry(key)
    return "\n".join(lines)


def _entry(key: Key) -> Iterator[str]:
    default = "" if key.option.positional or key.option.required else f" (default: {plain(key.default)})"
    yield "  " + (key.name if key.option.positional else ", ".join(key.flags))
    width = max(40, shutil.get_terminal_size().columns - 8)
    yield from textwrap.wrap(
        f"{key.option.help} [{allowed(key)}]{default}", width, initial_indent=" " * 6, subsequent_indent=" " * 6
    )


def plain(value: Any) -> str:
    return (
        " ".join(item if isinstance(item, str) else f"{item:g}" for item in value) or "none"
        if isinstance(value, tuple)
        else str(value)
    )


def config_text(
    values: Mapping[str, Any], origins: Mapping[str, str], titles: Mapping[str, str], keys: Iterable[Key]
) -> str:
    """YAML that gives the same configuration again; each line ends with the origin of its value."""
    lines: list[str] = []
    for section, group in itertools.groupby(keys, lambda key: key.section):
        lines += [""] * bool(lines) + [f"# {titles[section]}"]
        comment = "# " if section == "script" else ""  # not a key of YAML files
        lines += [f"{comment}{_yaml_line(key.name, values[key.name]):<40}  # {origins[key.name]}" for key in group]
    return "\n".join(lines)


def _yaml_line(name: str, value: Any) -> str:
    flow = None if value and isinstance(value, tuple) else False  # [a, b] for lists, no braces around the line
    return yaml.safe_dump({name: value}, default_flow_style=flow, width=float("inf"), allow_unicode=True).strip()


def run_text(config: Config) -> str:
    """YAML that gives ``config`` again: what was set; defaults stand in comments, in case they change."""
    lines: list[str] = []
    for section, declaration in SECTIONS.items():
        lines += ["", f"# {(declaration.__doc__ or section).splitlines()[0]}"]
        for key in keys_of(section, declaration):
            value, source = getattr(getattr(config, section), key.name), config.origins[key.name]
            lines.append(f"{'# ' if source == DEFAULT else ''}{_yaml_line(key.name, value):<40}  # {source}")
    return "\n".join(lines)
