"""Reads YAML files and command lines: keys and texts with their origin, not yet converted."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from mindeit.config.elsewhere import is_harmless, mistake
from mindeit.config.options import BOOLEANS, NOTHING, Key, Text, split_list
from mindeit.errors import UserError, nearest, shorten

DEFAULT, COMMAND_LINE = "default", "command line"
_NUMBER = re.compile(r"[+-]?\d*\.?\d+(e[+-]?\d+)?")
SHIPPED = Path(__file__).parents[1] / "configs"  # a link to the repository's configs, files in a wheel
LARGEST_FILE = 100_000  # bytes; a configuration is a page, a checkpoint given by mistake is not


@dataclasses.dataclass(frozen=True)
class Written:
    """One key as written; ``place`` is its origin, with the line for a file."""

    key: Key
    text: Text
    origin: str
    place: str


@dataclasses.dataclass
class Source:
    """The content of one file or command line, and the mistakes found in it.

    ``unfollowed``: origin and name of keys of other projects that are accepted without an effect.
    """

    written: list[Written] = dataclasses.field(default_factory=list)
    mistakes: list[str] = dataclasses.field(default_factory=list)
    unfollowed: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def __iadd__(self, other: Source) -> Source:
        self.written += other.written
        self.mistakes += other.mistakes
        self.unfollowed += other.unfollowed
        return self


def find_file(path: str) -> str:
    """``path``, or where there is no such file the configuration that the package ships under this name."""
    shipped = SHIPPED / f"{path.removesuffix('.yaml')}.yaml"
    return path if os.path.isfile(path) or os.path.dirname(path) or not shipped.is_file() else str(shipped)


def read_files(path: str, keys: Iterable[Key]) -> Source:
    """A YAML file, after the one it ``extends``, and so on: the later value of a key counts."""
    keys, current, reader = list(keys), find_file(path), ""
    files: dict[str, Source] = {}
    while True:
        source, base, place = _read_file(current, keys, reader)
        files[current] = source
        if base is None:
            break
        if base in files:
            source.mistakes.append(f"{place}: 'extends' leads back to {base}")
            break
        current, reader = base, f"{place}: extends: "
    whole = Source()
    for source in reversed(files.values()):
        whole += source
    return whole


def _read_file(path: str, keys: list[Key], reader: str = "") -> tuple[Source, str | None, str]:
    """One file: its keys, the path of the file it extends (or None), and where it says so."""
    source, extends, extends_place = Source(), None, ""
    known = {name: key for key in keys for name in (key.name, *key.option.aliases)}
    lines: dict[str, int] = {}
    try:
        entries = _entries(path)
    except UserError as error:
        return Source(mistakes=[f"{reader}{error}"]), None, ""
    for name, text, line in entries:
        place = f"{path}:{line}"
        canonical = known[name].name if name in known else name
        if canonical in lines:
            source.mistakes.append(f"{place}: '{shorten(name)}' is given twice, first in line {lines[canonical]}")
            continue
        lines[canonical] = line
        if name == "extends" and isinstance(text, str) and text:
            extends, extends_place = os.path.normpath(os.path.join(os.path.dirname(path), text)), place
        elif name == "extends":
            source.mistakes.append(f"{place}: 'extends' allows the path of one YAML file")
        elif name not in known and is_harmless(name, text):
            source.unfollowed.append((path, name))
        elif name not in known:
            source.mistakes.append(f"{place}: {mistake('key', name, text, known)}")
        elif text is None:
            source.mistakes.append(f"{place}: '{name}' holds a nested block, allowed: a value or a flat list")
        else:
            source.written.append(Written(known[name], text, path, place))
    return source, extends, extends_place


def _entries(path: str) -> list[tuple[str, Text | None, int]]:
    """Name, text and line of each key. YAML tags are not followed, so no objects are created."""
    text = _read_text(path)
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except RecursionError:
        raise UserError(f"{path}: not a configuration: nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "syntax error"
        raise UserError(f"{where}: not valid YAML: {reason}") from None
    except (ValueError, OverflowError) as error:  # an escape or a version number beyond all measure
        raise UserError(f"{path}: not valid YAML: {shorten(error)}") from None
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: not a configuration: allowed are lines of 'key: value'")
    return [
        (name.value if isinstance(name, yaml.ScalarNode) else "?", _text(value), name.start_mark.line + 1)
        for name, value in root.value
    ]


def _text(node: yaml.Node) -> Text | None:
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return tuple(item.value for item in node.value)
    return None


def _read_text(path: str) -> str:
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode) and not path.startswith("/dev/"):  # `<(command)` is /dev/fd/63
            raise UserError(f"{path}: a named pipe, which may never end; allowed: a file")
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise UserError(f"{path}: not a configuration: larger than {LARGEST_FILE} bytes")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        folder = os.path.dirname(path) or "."
        files = os.listdir(folder) if os.path.isdir(folder) else []
        files += [] if os.path.dirname(path) else sorted(name.name for name in SHIPPED.glob("*.yaml"))
        raise UserError(f"{path}: no such file{nearest(os.path.basename(path), files)}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{shorten(path, 200)}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_command_line(argv: Sequence[str], keys: Iterable[Key], unused: Iterable[Key] = ()) -> Source:
    """``--key value``, ``--key=value``, a bare boolean ``--key``, hyphens for underscores; the last one counts.

    ``unused`` are keys that other scripts have: naming one is a mistake of its own kind.
    """
    keys, source, words = list(keys), Source(), deque(argv)
    loose: list[str] = []
    known = {flag: key for key in keys for flag in key.flags}
    elsewhere = {flag for key in unused for flag in key.flags}
    while words:
        word = words.popleft()
        if word == "--":
            loose += words
            break
        if not _is_flag(word):
            loose.append(word)
            continue
        name, equals, text = word.partition("=")
        flag = name[:2] + name[2:].replace("-", "_")
        if flag not in known:
            values = ((text,) if equals else _skip_values(words)) or ("True",)
            if is_harmless(flag.lstrip("-"), values):
                source.unfollowed.append((COMMAND_LINE, name))
                continue
            unused_here = f"'{name}' is an option of other scripts, not of this one"
            unknown = mistake("option", name, " ".join(values), (key.name for key in keys))
            source.mistakes.append(f"{COMMAND_LINE}: {unused_here if flag in elsewhere else unknown}")
            continue
        value = text if equals else _take(known[flag], words)
        if value is None:
            source.mistakes.append(f"{COMMAND_LINE}: '{flag}' needs a value")
        else:
            source.written.append(Written(known[flag], value, COMMAND_LINE, COMMAND_LINE))
    source += _positional(loose, keys)
    return source


def _is_flag(word: str) -> bool:
    return re.match(r"-(?!\.?\d).", word) is not None  # -1 and -.5 are values, and so is -


def _skip_values(words: deque[str]) -> tuple[str, ...]:
    """Of an unknown option: not one more mistake each."""
    values = []
    while words and not _is_flag(words[0]):
        values.append(words.popleft())
    return tuple(values)


def _take(key: Key, words: deque[str]) -> Text | None:
    """The words of an option's value; None if there are none."""
    if key.kind is bool and key.length is None:
        is_value = words and (words[0].lower() in BOOLEANS or _NUMBER.fullmatch(words[0]))  # a wrong one, if a number
        return words.popleft() if is_value else "True"
    if not words or _is_flag(words[0]):
        return None
    if key.length is None:
        return words.popleft()
    items: tuple[str, ...] = ()
    while words and not _is_flag(words[0]) and (key.length == 0 or len(items) < key.length):
        word = words.popleft()
        if key.optional and not items and word.lower() in NOTHING:
            return word
        items += split_list(word)
    return items


def _positional(words: Sequence[str], keys: Iterable[Key]) -> Source:
    taker = next((key for key in keys if key.option.positional), None)
    if taker is None:
        return Source(mistakes=[f"{COMMAND_LINE}: '{shorten(word)}' belongs to no option" for word in words])
    return Source([Written(taker, tuple(words), COMMAND_LINE, COMMAND_LINE)] if words else [])
