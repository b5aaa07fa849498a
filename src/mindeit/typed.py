"""Reads JSON from files of unknown origin: values have their declared types, or one line says what is wrong.

Supported types: ``int``, ``float`` (finite), ``str``, ``bool``, ``Optional``,
``Literal``, tuples, ``Mapping[str, ...]``, ``Any``, and bounds by ``Annotated[float, Bounds(above=0)]``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Optional,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from mindeit.errors import UserError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")
_NOUNS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_SHOWN = 60  # characters of a value in a message


@dataclasses.dataclass(frozen=True)
class Bounds:
    at_least: Optional[float] = None
    above: Optional[float] = None
    at_most: Optional[float] = None

    def hold(self, value: float) -> bool:
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        limits = {"at least": self.at_least, "above": self.above, "at most": self.at_most}
        return " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)


Count = Annotated[int, Bounds(at_least=0)]


class _Mismatch(Exception):
    """(where inside, the value, what is allowed)"""


def parse(text: Union[str, bytes], where: object) -> Any:
    """JSON that others may have written."""
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError:
        reason = "nested too deep"
    except UnicodeDecodeError:
        reason = "not UTF-8"
    except ValueError as error:  # of JSON, or a number of thousands of digits
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "a number is too long"
    raise UserError(f"{where}: is not readable as JSON ({reason}): {_shown(text)}")


def read(kind: type[Kind], values: Any, where: object) -> Kind:
    """A dataclass from a JSON object with exactly its fields; those with a default may be missing."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    needed = [name for name, field in fields.items() if field.default is field.default_factory is dataclasses.MISSING]
    checked = read_fields(get_type_hints(kind, include_extras=True), values, where, needed)
    for name in checked:
        if name not in fields:
            raise UserError(
                f"{where}: holds '{name}'{nearest(name, fields)}, which this version does not know; "
                f"allowed: {', '.join(fields)}"
            )
    return kind(**checked)


def read_fields(
    hints: Mapping[str, Any], values: Any, where: object, needed: Optional[Iterable[str]] = None
) -> dict[str, Any]:
    """The entries of a JSON object; those in ``hints`` checked, others as they are. ``needed`` None: all of hints."""
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: is {_shown(values)}, allowed: an object with {', '.join(hints)}")
    missing = [name for name in (hints if needed is None else needed) if name not in values]
    if missing:
        raise UserError(f"{where}: lacks {', '.join(missing)}")
    try:
        return {name: _checked(hints[name], value, name) if name in hints else value for name, value in values.items()}
    except _Mismatch as wrong:
        place, value, allowed = wrong.args
        raise UserError(f"{where}: {place} is {_shown(value)}, allowed: {allowed}") from None


def _checked(hint: Any, value: Any, place: str) -> Any:
    """``value`` converted to the type ``hint``."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if hasattr(hint, "__metadata__"):  # Annotated
        kind, bounds = hint.__origin__, hint.__metadata__[0]
        if not (_is(kind, value) and bounds.hold(value)):
            raise _Mismatch(place, value, _words(hint))
        return kind(value)
    if origin is Union:
        return _one_of(hint, value, place)
    if origin is Literal:
        if not any(value == part and type(value) is type(part) for part in parts):
            raise _Mismatch(place, value, _words(hint))
        return value
    if origin is tuple:
        return _row(hint, value, place)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _Mismatch(place, value, _words(hint))
        return {key: _checked(parts[1], entry, f"{place}.{key}") for key, entry in value.items()}
    if not _is(hint, value):
        raise _Mismatch(place, value, _words(hint))
    return hint(value)


def _is(kind: type, value: Any) -> bool:
    """True is not a whole number; 3 is a number; NaN and infinity are not."""
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and _finite(value)
    return type(value) is kind


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _one_of(hint: Any, value: Any, place: str) -> Any:
    for part in get_args(hint):
        try:
            return None if part is type(None) and value is None else _checked(part, value, place)
        except _Mismatch as wrong:
            if wrong.args[0] != place:  # the right kind of thing, with something wrong inside
                raise
    raise _Mismatch(place, value, _words(hint))


def _row(hint: Any, value: Any, place: str) -> tuple:
    parts = get_args(hint)
    if not isinstance(value, (list, tuple)):
        raise _Mismatch(place, value, _words(hint))
    kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
    if len(kinds) != len(value):
        raise _Mismatch(place, value, _words(hint))
    return tuple(_checked(kind, each, f"{place}[{at}]") for at, (kind, each) in enumerate(zip(kinds, value)))


def _words(hint: Any) -> str:
    """What is allowed, in words: ``a whole number, at least 1``."""
    origin, parts = get_origin(hint), get_args(hint)
    if hasattr(hint, "__metadata__"):
        return f"{_words(hint.__origin__)}, {hint.__metadata__[0]}"
    if origin is Union:
        return " or ".join("null" if part is type(None) else _words(part) for part in parts)
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin is tuple:
        count = "any number of values" if parts[-1] is Ellipsis else f"{len(parts)} values"
        return f"a list of {count}, each {_words(parts[0])}"
    return _NOUNS.get(hint, "an object")


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        value = value[:_SHOWN].decode("utf-8", "replace")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return f"'{shown}'" if isinstance(value, str) else shown
