"""One option: its names, the texts that are allowed for it, and their conversion to a value.

YAML and the command line both deliver text (or a list of texts), so both follow the same rules: ``5e-4`` is a number
in either, ``yes`` is True in either, and ``0800`` is never octal.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

Text = Union[str, tuple[str, ...]]

BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
NOTHING = ("", "none", "null", "~")
NOUNS = {
    bool: ("True or False", "truth values"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("one line of text", "texts"),
}


@dataclasses.dataclass(frozen=True)
class Option:
    """The declaration of a key, beyond its type and default."""

    help: str
    choices: tuple = ()
    spellings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # other words for some of the choices
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    ascending: bool = False
    aliases: tuple[str, ...] = ()
    equals: bool = False  # a list of one number, as often as there are channels, is that number
    of_255: bool = False  # values above 1 are of 255, as MindCV writes them
    hint: str = ""  # ends the message on a value that is not allowed
    positional: bool = False  # takes the words of the command line that belong to no option
    required: bool = False


def option(default: Any, help: str, **details: Any) -> Any:
    """Declare a key in a dataclass: ``lr: float = option(5e-4, "learning rate", above=0)``; details as in Option."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **details)})


@dataclasses.dataclass(frozen=True)
class Key:
    """An option as declared in a dataclass: ``length`` is None for one value, 0 for any number of them."""

    name: str
    section: str
    default: Any
    kind: type
    optional: bool
    length: int | None
    option: Option

    @property
    def flags(self) -> tuple[str, ...]:
        names = (self.name, *self.option.aliases)
        return tuple(f"-{name}" if len(name) == 1 else f"--{name}" for name in names)


def keys_of(section: str, declaration: type) -> Iterator[Key]:
    """The keys a dataclass declares, in order."""
    hints = get_type_hints(declaration)
    for field in dataclasses.fields(declaration):
        hint = hints[field.name]
        optional = type(None) in get_args(hint)
        if optional:
            hint = next(part for part in get_args(hint) if part is not type(None))
        length = None
        if get_origin(hint) is tuple:
            parts = get_args(hint)
            hint, length = parts[0], 0 if parts[-1] is Ellipsis else len(parts)
        yield Key(field.name, section, field.default, hint, optional, length, field.metadata["option"])


def allowed(key: Key) -> str:
    """The allowed values, in words: ``a number, at least 0 and below 1, or None``."""
    option = key.option
    if option.choices:
        words = [str(choice) for choice in option.choices] + ["None"] * key.optional
        return f"{', '.join(words[:-1])} or {words[-1]}" + ", several of them, or none" * (key.length == 0)
    noun, nouns = NOUNS[key.kind]
    if key.length is not None:
        noun = f"{key.length or 'any number of'} {nouns}"
    limits = {"at least": option.at_least, "above": option.above, "at most": option.at_most, "below": option.below}
    bounds = " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)
    parts = (noun, bounds, "or all of 255" * option.of_255, "ascending" * option.ascending, "or None" * key.optional)
    return ", ".join(filter(None, parts))


def split_list(text: str) -> tuple[str, ...]:
    """``"[0.5, 0.5]"``, ``"0.5,0.5"`` and ``"0.5 0.5"`` are the same list."""
    return tuple(re.split(r"[,\s]+", text.strip("[](), \t"))) if text.strip("[](), \t") else ()


def convert(key: Key, text: Text) -> Any:
    """``text`` as a value; ValueError if the key does not allow it."""
    if key.optional and isinstance(text, str) and text.lower() in NOTHING:
        return None
    if key.length is None:
        return _one(key, text[0] if key.option.positional and len(text) == 1 else text)
    items = split_list(text) if isinstance(text, str) else text
    if key.option.choices and len(items) == 1 and items[0].lower() in NOTHING:
        return ()
    if key.length and len(items) != key.length:
        raise ValueError(f"{len(items)} values")
    if key.option.of_255:
        items = _of_one(items)
    values = tuple(_one(key, item) for item in items)
    if key.option.ascending and list(values) != sorted(values):
        raise ValueError("not ascending")
    return values


def _one(key: Key, text: Text) -> Any:
    if key.option.equals and not isinstance(text, str) and len(set(text)) == 1:
        text = text[0]
    if not isinstance(text, str):
        raise ValueError("a list")
    if key.option.choices:
        words = {str(choice).lower(): choice for choice in key.option.choices}
        known = {**words, **key.option.spellings}
        if text.lower() not in known:
            raise ValueError("not a choice")
        return known[text.lower()]
    readers = {bool: _boolean, int: _whole, float: _number, str: _line}
    return _within(key.option, readers[key.kind](text))


def _of_one(items: tuple[str, ...]) -> tuple[str, ...]:
    """Values of 0..255 as 0..1; values of 0..1 stay. A mixture is a mistake."""
    values = [_number(item) for item in items]
    if max(values, default=0) <= 1:
        return items
    if any(0 < value < 1 for value in values):
        raise ValueError("shares and values of 255")
    return tuple(str(value / 255) for value in values)


def _boolean(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise ValueError("not a boolean")
    return BOOLEANS[text.lower()]


def _whole(text: str) -> int:
    value = int(text)
    if abs(value) >= 2**63:  # what arrays of whole numbers hold
        raise ValueError("beyond all measure")
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _line(text: str) -> str:
    """Any text that a file name may hold: one line, not empty."""
    if len(text.splitlines()) != 1 or re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("not one line of text")
    return text


def _within(option: Option, value: Any) -> Any:
    inside = (
        (option.at_least is None or value >= option.at_least)
        and (option.above is None or value > option.above)
        and (option.at_most is None or value <= option.at_most)
        and (option.below is None or value < option.below)
    )
    if not inside:
        raise ValueError("out of range")
    return value
